"""Values of windows that lie on no lattice: at coordinates that somebody gives."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.coords import list_windows
from napari_wsi_heatmap.cut import BatchCutter
from napari_wsi_heatmap.errors import ModelOutputError
from napari_wsi_heatmap.listmap import LIST, ListHeatmap, list_to_json, refuse_existing, save_list
from napari_wsi_heatmap.loader import Loader
from napari_wsi_heatmap.order import ListOrder
from napari_wsi_heatmap.plan import fit_model, new_predictor, try_model, value_shape, versions
from napari_wsi_heatmap.record import describe_model, describe_slide, now
from napari_wsi_heatmap.runfolder import FORMAT, FORMAT_VERSION
from napari_wsi_heatmap.states import DONE, FAILED, NOT_FINITE, count_states
from napari_wsi_heatmap.tilecache import CachedSlide, TileCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.dry_run import DryRun
    from napari_wsi_heatmap.predict import Predictor
    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.slides.base import Slide


def predict_list(
    slide: Slide, model: HeatmapModel, coords: Any, settings: RunSettings, out: Path | None = None
) -> NDArray[np.float32]:
    """Values (N, C[, h, w]) of windows at (N, 2) top-left (y, x), level-0 pixels.

    The same reading, cutting and batching as a run. NaN for windows that cannot be read. With
    `out`, the list is saved as a store as well.
    """
    if out is not None:
        refuse_existing(out)
    spec, model = fit_model(slide, model, settings)
    windows = list_windows(spec, coords)
    try:
        predictor = new_predictor(model, windows, settings)
        two = [windows.size // 2, windows.size // 3] if windows.size else []
        dry = try_model(slide, predictor, windows, np.array(two, np.int64), settings)
        if out is not None:
            _refuse_dense(dry, out)
        values = np.full((windows.size, *value_shape(dry)), np.nan, np.float32)
        read = np.zeros(windows.size, bool)
        for index, batch in _batches(slide, windows, predictor, dry, settings):
            values[index], read[index] = batch, True
    finally:
        model.restore()
    if out is not None:
        _save(slide, model, windows, values, read, dry.names, out)
    return values


def _refuse_dense(dry: DryRun, out: Path) -> None:
    if dry.map_shape is not None:
        raise ModelOutputError(
            "a list of windows with dense outputs cannot be saved", out, "leave out= away"
        )


def _save(
    slide: Slide,
    model: HeatmapModel,
    windows: WindowList,
    values: NDArray[np.float32],
    read: NDArray[np.bool_],
    names: tuple[str, ...],
    out: Path,
) -> None:
    state = np.where(read, DONE, FAILED).astype(np.uint8)
    state[~np.isfinite(values).all(1) & read] |= np.uint8(NOT_FINITE)
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": LIST,
        "status": "done" if read.all() else "done-with-failures",
        "slide": describe_slide(slide),
        "model": describe_model(model, names, None),
        "list": list_to_json(windows),
        "counts": count_states(state),
        "versions": versions(),
        "ended": now(),
    }
    save_list(ListHeatmap(windows, values, state, record), out)


def _batches(
    slide: Slide,
    windows: WindowList,
    predictor: Predictor,
    dry: DryRun,
    settings: RunSettings,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    loader = Loader(
        CachedSlide(slide, TileCache(settings.memory_bytes // 2)),
        windows,
        ListOrder(windows, np.ones(windows.size, bool)),
        threading.Event(),
        readers=settings.reader_threads,
        memory=settings.memory_bytes // 2,
    )
    cutter, shape = BatchCutter(windows, dry.batch_size, predictor.device), value_shape(dry)
    try:
        for loaded in loader:
            for batch in cutter.cut(loaded):
                yield batch.index, predictor(batch.patches, len(batch.index), shape)
        for batch in cutter.tail():
            yield batch.index, predictor(batch.patches, len(batch.index), shape)
    finally:
        loader.close()
