"""A run over windows at given coordinates, resolved: the list is folded into a grid."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.control import stop_if
from napari_wsi_heatmap.coords import WindowList, list_windows
from napari_wsi_heatmap.devices import choose_devices
from napari_wsi_heatmap.errors import GridError, ModelOutputError
from napari_wsi_heatmap.folded import FOLDED, fold, select_all
from napari_wsi_heatmap.frame import lay_frame
from napari_wsi_heatmap.grid import LEVEL_TOLERANCE, WindowSpec
from napari_wsi_heatmap.listmap import LIST, list_to_json
from napari_wsi_heatmap.plan import Plan, fit_model, new_predictor
from napari_wsi_heatmap.sides import pair_of
from napari_wsi_heatmap.states import PENDING, state_of
from napari_wsi_heatmap.tissue import TissueMask
from napari_wsi_heatmap.tryout import PLANNING, try_model, two_of

if TYPE_CHECKING:
    from threading import Event

    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.slides.base import Slide

    Pair = tuple[float, float]


def plan_list(
    slide: Slide,
    model: HeatmapModel,
    coords: Any,
    settings: RunSettings,
    *,
    patch_size: Pair | None = None,
    cancelled: Event | None = None,
) -> Plan:
    """Resolve a run over a list of windows; compare `plan_run`.

    Parameters
    ----------
    coords : (N, 2) array
        Top-left (y, x), level-0 pixels; rounded to whole pixels of the level read.
    patch_size : (float, float), optional
        (height, width) of a window, level-0 pixels; it is resized to what the model sees. Without
        it the model's window and `mpp` or `level` decide, as in a run over a grid.

    Raises
    ------
    GridError
        If there are none, or they lie beyond the slide.
    ModelOutputError
        If the model gives a map for each window.
    """
    spec, model = _fitted(slide, model, settings, patch_size)
    windows = list_windows(spec, coords)
    level_shape = slide.levels[spec.level].shape
    _refuse_nowhere(windows, level_shape, slide)
    grid = fold(windows, level_shape)
    selection = select_all(grid)
    stop_if(cancelled, PLANNING, slide.name)
    try:
        devices = choose_devices(settings.device, model)
        predictor = new_predictor(model, grid, settings, devices[0])
        chosen = two_of(state_of(selection.state) == PENDING)
        dry = try_model(slide, predictor, grid, chosen, settings, cancelled)
    finally:
        model.restore()
    if dry.map_shape is not None:
        what = f"the model gives each window {dry.map_shape[0]} x {dry.map_shape[1]} cells"
        raise ModelOutputError(what, f"model {model.name!r}", "leave the coordinates away")
    frame, tissue = lay_frame(grid, dry.channels), TissueMask(None, record={"rule": "list"})
    return Plan(slide, model, settings, frame, selection, tissue, predictor, dry, devices)


def list_record(windows: WindowList, patch_size: Pair | None) -> dict[str, Any]:
    """What the record of a run says of its list; where the windows lie is in the store."""
    asked = {FOLDED: windows.size, "patch_size": patch_size and list(patch_size)}
    return {"kind": LIST, "list": list_to_json(windows) | asked}


def _fitted(
    slide: Slide, model: HeatmapModel, settings: RunSettings, patch_size: Pair | None
) -> tuple[WindowSpec, HeatmapModel]:
    if patch_size is None:
        return fit_model(slide, model, settings)
    window = pair_of(model.window if settings.window is None else settings.window, "window")
    level = _level(slide, patch_size, window, settings.level)
    downsample = slide.levels[level].downsample
    sides = (max(1, round(p / d)) for p, d in zip(patch_size, downsample, strict=True))
    height, width = sides
    spec = WindowSpec(level, downsample, window, (height, width), (height, width), slide.mpp)
    return spec, copy.copy(model)


def _level(slide: Slide, patch_size: Pair, window: tuple[int, int], asked: Any) -> int:
    """The coarsest level on which a patch still has the pixels that the model sees."""
    if asked is not None:
        return _given_level(slide, asked)
    fine = [
        number
        for number, level in enumerate(slide.levels)
        if all(
            side / down * LEVEL_TOLERANCE >= pixels
            for side, down, pixels in zip(patch_size, level.downsample, window, strict=True)
        )
    ]
    return max(fine, default=0)


def _given_level(slide: Slide, asked: Any) -> int:
    level = asked(slide) if callable(asked) else asked
    if not isinstance(level, int) or not 0 <= level < len(slide.levels):
        last = len(slide.levels) - 1
        raise GridError(f"no level {level!r}", slide.name, f"the slide has levels 0 to {last}")
    return level


def _refuse_nowhere(windows: WindowList, level_shape: tuple[int, int], slide: Slide) -> None:
    if not windows.size:
        raise GridError("there are no coordinates", slide.name, "give at least one window")
    near, far = windows.corners, windows.corners + np.asarray(windows.spec.footprint)
    beyond = int(np.count_nonzero((near >= level_shape).any(1) | (far <= 0).any(1)))
    if beyond:
        what = f"{beyond} of {windows.size} windows lie beyond the slide"
        raise GridError(what, slide.name, "give coordinates of this slide, in level-0 pixels")
    if math.prod(windows.spec.footprint) > 1 << 28:
        raise GridError(f"windows of {windows.spec.footprint} px are too large", slide.name)
