"""Everything that decides the values of a run, resolved before it starts.

`plan_run` turns what was asked (slide, model, settings) into a frozen `Plan`. Two runs with equal
`identity` give the same bits, so one may continue the other; order, regions, threads and memory
are not part of it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from napari_wsi_heatmap.blend import overlaps
from napari_wsi_heatmap.control import stop_if
from napari_wsi_heatmap.devices import choose_devices
from napari_wsi_heatmap.disagreement import KIND as DISAGREEMENT
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.models.base import adapted
from napari_wsi_heatmap.models.outputs import plain_output
from napari_wsi_heatmap.predict import Predictor, enough_memory
from napari_wsi_heatmap.selection import select_windows, windows_wanted
from napari_wsi_heatmap.states import PENDING, state_of
from napari_wsi_heatmap.tissue import find_tissue
from napari_wsi_heatmap.tryout import PLANNING, try_model, two_of
from napari_wsi_heatmap.versions import versions

if TYPE_CHECKING:
    from threading import Event

    import numpy as np
    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.grid import WindowGrid, WindowSpec
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.dry_run import DryRun
    from napari_wsi_heatmap.selection import Selection
    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.slides.base import Slide
    from napari_wsi_heatmap.tissue import TissueMask

    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]


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
    devices: tuple[torch.device, ...] = (torch.device("cpu"),)
    """What computes; the first is the predictor's. They share the regions."""

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
        kept = (DISAGREEMENT,) if self.keeps_disagreement else ()
        return (*self.dry.names, *kept)

    @property
    def uncertainty(self) -> tuple[str, ...]:
        """Names of the channels that say how sure the others are; they are the last."""
        return self.names[self.outputs :]

    @property
    def outputs(self) -> int:
        """Number of channels that are outputs of the model."""
        return self.dry.channels - len(self.model.added)

    @property
    def keeps_disagreement(self) -> bool:
        """Whether the map has a channel that the model does not give."""
        return self.frame.channels > self.dry.channels

    @property
    def value_shape(self) -> tuple[int, ...]:
        """(C,) or (C, h, w): what the model gives a window."""
        return value_shape(self.dry)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """What the model gives a window in one row: with features these behind the values."""
        return row_shape(self.dry)

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know before looking at the values, a line each."""
        tissue = (self.tissue.notice,) if self.tissue.notice else ()
        return (*self.grid.notices, *tissue, *self.dry.notices)

    def windows_for(self, grid: WindowGrid, model: HeatmapModel) -> tuple[TissueMask, Selection]:
        """Tissue and windows for another model of the same run.

        Raises
        ------
        GridError
            If it would see other windows, naming what differs; how many pixels of them it sees
            does not matter.
        """
        for name in ("level", "footprint", "stride"):
            one, other = getattr(self.grid.spec, name), getattr(grid.spec, name)
            if one != other:
                raise GridError(
                    f"{self.model.name!r} and {model.name!r} would see different windows "
                    f"({name} {one} and {other})",
                    do="give a window, a stride and mpp or level that suit both, or run them "
                    "one by one",
                )
        return self.tissue, self.selection

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
            "output": plain_output(self.model.output),
            "outputs": list(self.value_shape),
            "cell": list(self.frame.cell),
            "activation": self.model.activation,
            "tta": self.model.tta,
            "disagreement": self.keeps_disagreement or None,
            "resize": self.settings.resize if spec.resized else None,
            "precision": self.settings.precision,
            "batch_size": self.batch_size,
            "compile": self.dry.compiled or None,  # None: as in records that do not know of it
            "device": self.predictor.device.type,
            "versions": versions(),
            **({"blend": self.settings.blend} if overlaps(self.frame) else {}),
            **({} if self.dry.features is None else {"features": self.dry.features}),
        }


def plan_run(
    slide: Slide,
    model: HeatmapModel,
    settings: RunSettings,
    cancelled: Event | None = None,
    beside: Plan | None = None,
) -> Plan:
    """Resolve a run: grid, windows to compute, device, and a dry run of the model.

    With `cancelled` set it gives up with a `HeatmapError`, after the read or call at hand. A run
    `beside` another, the same regions going through several models, has its windows.

    Raises
    ------
    SlideError, GridError, ModelError
        Whatever makes the run impossible, before anything is written.
    """
    stop_if(cancelled, PLANNING, slide.name)
    spec, model = fit_model(slide, model, settings)
    grid = lay_grid(spec, slide.levels[spec.level].shape, settings.edge)
    tissue, selection = (
        _windows(slide, grid, settings, cancelled)
        if beside is None
        else beside.windows_for(grid, model)
    )
    chosen = two_of(state_of(selection.state) == PENDING)
    stop_if(cancelled, PLANNING, slide.name)
    try:
        devices = choose_devices(settings.device, model)
        predictor = new_predictor(model, grid, settings, devices[0])
        dry = try_model(slide, predictor, grid, chosen, settings, cancelled)
    finally:
        # A run may begin much later, or never; until then the model is its owner's.
        model.restore()
    stop_if(cancelled, PLANNING, slide.name)
    frame = lay_frame(grid, dry.channels, dry.map_shape, model.output_stride)
    if settings.disagreement and overlaps(frame):
        frame = replace(frame, channels=frame.channels + 1)
    return Plan(slide, model, settings, frame, selection, tissue, predictor, dry, devices)


def _windows(
    slide: Slide, grid: WindowGrid, settings: RunSettings, cancelled: Event | None
) -> tuple[TissueMask, Selection]:
    """Find the tissue, and the windows to compute."""
    wanted = windows_wanted(slide, grid, settings.roi)
    tissue = find_tissue(slide, settings.tissue, grid, wanted, cancelled=cancelled)
    return tissue, select_windows(
        slide, grid, tissue, tissue_min=settings.tissue_min, roi=settings.roi
    )


def fit_model(
    slide: Slide, model: HeatmapModel, settings: RunSettings
) -> tuple[WindowSpec, HeatmapModel]:
    """Resolve the windows that a model is to see, and tell it the size of a pixel there."""
    wanted = None if settings.level is not None else model.mpp
    mpp = wanted if settings.mpp is None else settings.mpp
    window = model.window if settings.window is None else settings.window
    spec = resolve_window(slide, window, settings.stride, mpp=mpp, level=settings.level)
    level_mpp = slide.mpp_at(spec.level)
    if mpp is None and level_mpp is not None and model.mpp is not None:
        mpp = sum(level_mpp) / 2
    # A copy: where several runs have one model, each gives back what it has borrowed itself.
    model = copy.copy(model)
    return spec, model if mpp in (None, model.mpp) else adapted(model, mpp=mpp)


def new_predictor(
    model: HeatmapModel,
    windows: WindowGrid | WindowList,
    settings: RunSettings,
    device: torch.device | None = None,
) -> Predictor:
    """Bring a model to its device and bind it to the size of its windows."""
    device = device or choose_devices(settings.device, model)[0]
    place_model(model, device)
    return Predictor(
        model,
        device,
        windows.spec.window,
        settings.resize,
        settings.precision,
        compile=settings.compile,
    )


def place_model(model: HeatmapModel, device: torch.device) -> None:
    """Move a model to a device, ready to be evaluated; ``model.restore()`` puts it back."""
    with enough_memory(f"the model on {device}"):
        model.to(device)


def value_shape(dry: DryRun) -> tuple[int, ...]:
    """(C,) or (C, h, w): what the model gave a window in the dry run."""
    return (dry.channels, *(dry.map_shape or ()))


def row_shape(dry: DryRun) -> tuple[int, ...]:
    """What the model gave a window in one row: with features these behind the values."""
    shape = value_shape(dry)
    return shape if dry.features is None else (math.prod(shape) + dry.features,)
