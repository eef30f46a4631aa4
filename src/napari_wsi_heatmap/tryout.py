"""A model tried on windows of the slide before a run begins."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from napari_wsi_heatmap.control import stop_if, while_wanted
from napari_wsi_heatmap.errors import ModelRunError, SlideReadError
from napari_wsi_heatmap.heap import kept_memory
from napari_wsi_heatmap.models.dry_run import dry_run

if TYPE_CHECKING:
    from threading import Event

    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.models.dry_run import DryRun
    from napari_wsi_heatmap.predict import Predictor
    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.slides.base import Slide

    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]

PLANNING: Final = "the run was planned"


def two_of(pending: Mask) -> Index:
    """Flat indices of two windows to try: the middle one of those pending (Y, X), and another."""
    # Row by row: a list of millions of windows would be many times the mask.
    before = np.count_nonzero(pending, axis=1).cumsum()
    chosen = []
    for n in (int(before[-1]) // 2, int(before[-1]) // 3):
        row = int(np.searchsorted(before, n, "right"))
        passed = int(before[row - 1]) if row else 0
        chosen.append(row * pending.shape[1] + np.flatnonzero(pending[row])[n - passed])
    return np.array(chosen, np.int64)


@kept_memory(give_back=False)  # the run begins at once, and a viewer waits
def try_model(
    slide: Slide,
    predictor: Predictor,
    windows: WindowGrid | WindowList,
    chosen: Index,
    settings: RunSettings,
    cancelled: Event | None = None,
) -> DryRun:
    """Run the model on at most two windows of the slide, given by their flat indices."""
    kh, kw = windows.spec.footprint
    patches = np.empty((2, kh, kw, 3), np.uint8)
    patches[:] = slide.background
    for patch, (y, x) in zip(patches, windows.origins(chosen).tolist(), strict=False):
        # The run itself will say which windows cannot be read.
        stop_if(cancelled, PLANNING, slide.name)
        with suppress(SlideReadError):
            patch[:] = slide.read_region(windows.spec.level, y, x, kh, kw)
    try:
        return _dry_run(predictor, patches, settings, cancelled)
    except ModelRunError:
        # Some models take views of what they compute, which channels last do not allow.
        if not predictor.sort_channels():
            raise
    return _dry_run(predictor, patches, settings, cancelled)


def _dry_run(
    predictor: Predictor,
    patches: NDArray[np.uint8],
    settings: RunSettings,
    cancelled: Event | None,
) -> DryRun:
    """Try the model on patches (2, kh, kw, 3)."""
    seen = predictor.patches(torch.from_numpy(patches).permute(0, 3, 1, 2))
    compiled = predictor.compiled
    dry = dry_run(
        predictor.model,
        seen,
        batch_size=settings.batch_size,
        device=predictor.device,
        dtype=predictor.dtype,
        call=while_wanted(predictor.as_it_is, cancelled, PLANNING),
        compiled=compiled and while_wanted(compiled, cancelled, PLANNING),
    )
    predictor.use_compiled = dry.compiled
    return dry
