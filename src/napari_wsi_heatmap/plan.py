"""Everything that decides the values of a run, resolved before it starts.

`plan_run` turns what was asked (slide, model, settings) into a frozen `Plan`. Two runs with equal
`identity` give the same bits, so one may continue the other; order, regions, threads and memory
are not part of it.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_wsi_heatmap.errors import PlanMismatchError, SlideReadError
from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.models.base import adapted
from napari_wsi_heatmap.models.dry_run import dry_run
from napari_wsi_heatmap.predict import Predictor, choose_device
from napari_wsi_heatmap.selection import select_windows
from napari_wsi_heatmap.states import PENDING, state_of
from napari_wsi_heatmap.tissue import find_tissue

if TYPE_CHECKING:
    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.grid import WindowGrid, WindowList, WindowSpec
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.dry_run import DryRun
    from napari_wsi_heatmap.selection import Selection
    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.tissue import TissueMask

VERSIONS = ("torch", "Pillow", "numpy", "openslide-bin", "napari-wsi-heatmap")
"""Packages whose version may change values; recorded, and part of a plan's identity."""


@dataclass(frozen=True)
class Plan:
    """A run, resolved: nothing is left to decide but the order."""

    slide: Slide
    model: HeatmapModel
    settings: RunSettings
    frame: MapFrame
    selection: Selection
    tissue: TissueMask
    predictor: Predictor
    dry: DryRun

    @property
    def grid(self) -> WindowGrid:
        """The lattice of windows."""
        return self.frame.grid

    @property
    def batch_size(self) -> int:
        """Windows in a batch."""
        return self.dry.batch_size

    @property
    def names(self) -> tuple[str, ...]:
        """One name per channel."""
        return tuple(self.dry.names)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know before looking at the values, a line each."""
        tissue = (self.tissue.notice,) if self.tissue.notice else ()
        return (*self.grid.notices, *tissue, *self.dry.notices)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides values, as plain values."""
        spec = self.grid.spec
        return {
            "slide": self.slide.fingerprint,
            "backend": self.slide.backend,
            "level": spec.level,
            "window": list(spec.window),
            "footprint": list(spec.footprint),
            "stride": list(spec.stride),
            "origin": [0, 0],
            "edge": self.grid.edge,
            "selection": self.selection.sha256,
            "model": self.model.sha256,
            "output": self.model.output,
            "activation": self.model.activation,
            "resize": self.settings.resize if spec.resized else None,
            "precision": self.settings.precision,
            "batch_size": self.batch_size,
            "device": self.predictor.device.type,
            "versions": versions(),
        }


def plan_run(slide: Slide, model: HeatmapModel, settings: RunSettings) -> Plan:
    """Resolve a run: grid, windows to compute, device, and a dry run of the model.

    Raises
    ------
    SlideError, GridError, ModelError
        Whatever makes the run impossible, before anything is written.
    """
    spec, model = fit_model(slide, model, settings)
    grid = lay_grid(spec, slide.levels[spec.level].shape, settings.edge)
    tissue = find_tissue(slide, settings.tissue)
    selection = select_windows(
        slide, grid, tissue, tissue_min=settings.tissue_min, roi=settings.roi
    )
    predictor = new_predictor(model, grid, settings)
    pending = np.flatnonzero(state_of(selection.state) == PENDING)
    dry = try_model(slide, predictor, grid, pending, settings)
    frame = lay_frame(grid, dry.channels, dry.map_shape, model.output_stride)
    return Plan(slide, model, settings, frame, selection, tissue, predictor, dry)


def fit_model(
    slide: Slide, model: HeatmapModel, settings: RunSettings
) -> tuple[WindowSpec, HeatmapModel]:
    """Resolve the windows that a model is to see, and tell it the size of a pixel there."""
    mpp = settings.mpp or (None if settings.level is not None else model.mpp)
    window = model.window if settings.window is None else settings.window
    spec = resolve_window(slide, window, settings.stride, mpp=mpp, level=settings.level)
    level_mpp = slide.mpp_at(spec.level)
    if mpp is None and level_mpp is not None and model.mpp is not None:
        mpp = sum(level_mpp) / 2
    return spec, model if mpp in (None, model.mpp) else adapted(model, mpp=mpp)


def new_predictor(
    model: HeatmapModel, windows: WindowGrid | WindowList, settings: RunSettings
) -> Predictor:
    """Bring a model to its device and bind it to the size of its windows."""
    device = choose_device(settings.device)
    model.to(device)
    return Predictor(model, device, windows.spec.window, settings.resize, settings.precision)


def try_model(
    slide: Slide,
    predictor: Predictor,
    windows: WindowGrid | WindowList,
    pending: np.ndarray[Any, np.dtype[np.int64]],
    settings: RunSettings,
) -> DryRun:
    """Run the model on two windows of the slide: the middle one and one a third away."""
    chosen = pending[[len(pending) // 2, len(pending) // 3]] if len(pending) else pending
    kh, kw = windows.spec.footprint
    patches = np.empty((2, kh, kw, 3), np.uint8)
    patches[:] = slide.background
    for patch, (y, x) in zip(patches, windows.origins(chosen).tolist(), strict=False):
        # The run itself will say which windows cannot be read.
        with suppress(SlideReadError):
            patch[:] = slide.read_region(windows.spec.level, y, x, kh, kw)
    seen = predictor.patches(torch.from_numpy(patches).permute(0, 3, 1, 2))
    return dry_run(
        predictor.model,
        seen,
        batch_size=settings.batch_size,
        device=predictor.device,
        dtype=predictor.dtype,
    )


def digest(identity: dict[str, Any]) -> str:
    """Hex digest of a plan's identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def refuse_mismatch(planned: dict[str, Any], recorded: dict[str, Any], where: object) -> None:
    """Refuse to continue an output whose plan differs, naming what differs.

    Raises
    ------
    PlanMismatchError
    """
    differing = [key for key in planned if planned[key] != recorded.get(key)]
    if differing:
        changes = ", ".join(
            f"{key} {_short(recorded.get(key))} → {_short(planned[key])}" for key in differing[:3]
        )
        raise PlanMismatchError(
            f"the output was begun with another {' and '.join(differing)} ({changes})",
            where,
            "choose another output, or the settings it was begun with",
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:12].strip('"') + "…"


def versions() -> dict[str, str]:
    """Versions of the packages that decide values."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
