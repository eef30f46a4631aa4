"""Values of windows that lie on no lattice: at coordinates that somebody gives."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.cut import BatchCutter
from napari_wsi_heatmap.grid import list_windows
from napari_wsi_heatmap.loader import Loader
from napari_wsi_heatmap.order import ListOrder
from napari_wsi_heatmap.plan import fit_model, new_predictor, try_model
from napari_wsi_heatmap.tilecache import CachedSlide, TileCache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowList
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.predict import Predictor
    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.slides.base import Slide


def predict_list(
    slide: Slide, model: HeatmapModel, coords: Any, settings: RunSettings
) -> NDArray[np.float32]:
    """Values (N, C[, h, w]) of windows at (N, 2) top-left (y, x), level-0 pixels.

    The same reading, cutting and batching as a run. NaN for windows that cannot be read.
    """
    spec, model = fit_model(slide, model, settings)
    windows = list_windows(spec, np.asarray(coords))
    predictor = new_predictor(model, windows, settings)
    everything = np.arange(windows.size, dtype=np.int64)
    dry = try_model(slide, predictor, windows, everything, settings)
    cells = () if dry.map_shape is None else dry.map_shape
    values = np.full((windows.size, dry.channels, *cells), np.nan, np.float32)
    try:
        for index, batch in _batches(slide, windows, predictor, dry.batch_size, settings):
            values[index] = batch
    finally:
        model.restore()
    return values


def _batches(
    slide: Slide,
    windows: WindowList,
    predictor: Predictor,
    batch_size: int,
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
    cutter = BatchCutter(windows, batch_size, predictor.device)
    try:
        for loaded in loader:
            for batch in cutter.cut(loaded):
                yield batch.index, predictor(batch.patches, len(batch.index))
        for batch in cutter.tail():
            yield batch.index, predictor(batch.patches, len(batch.index))
    finally:
        loader.close()
