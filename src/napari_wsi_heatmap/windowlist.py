"""Values of windows that lie on no lattice: at coordinates that somebody gives."""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.cachedslide import CachedSlide
from napari_wsi_heatmap.coords import list_windows
from napari_wsi_heatmap.cut import BatchCutter
from napari_wsi_heatmap.errors import HeatmapError, ModelOutputError
from napari_wsi_heatmap.growing import empty_values
from napari_wsi_heatmap.listmap import LIST, ListHeatmap, list_to_json, refuse_existing, save_list
from napari_wsi_heatmap.listorder import ListOrder
from napari_wsi_heatmap.loader import Loader
from napari_wsi_heatmap.mil.places import read_coords
from napari_wsi_heatmap.models.again import spec_of
from napari_wsi_heatmap.plan import (
    fit_model,
    new_predictor,
    row_shape,
    value_shape,
)
from napari_wsi_heatmap.record import (
    account,
    describe_model,
    describe_slide,
    list_failed,
    note_halving,
    now,
    outcome,
)
from napari_wsi_heatmap.report import logging_notices
from napari_wsi_heatmap.runfolder import FORMAT, FORMAT_VERSION
from napari_wsi_heatmap.states import DONE, FAILED, NOT_FINITE, PENDING
from napari_wsi_heatmap.tilecache import TileCache
from napari_wsi_heatmap.timings import Timings
from napari_wsi_heatmap.tryout import try_model
from napari_wsi_heatmap.versions import versions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.cut import Batch
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.dry_run import DryRun
    from napari_wsi_heatmap.predict import Predictor
    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.slides.base import Slide


def predict_list(
    slide: Slide, model: HeatmapModel, coords: Any, settings: RunSettings, out: Path | None = None
) -> NDArray[np.float32]:
    """Values (N, C[, h, w]) of windows at (N, 2) top-left (y, x), level-0 pixels, or of an .h5.

    The same reading, cutting and batching as a run. NaN for windows that cannot be read. With
    `out`, the list is saved as a store as well. What the user should know is logged.
    """
    if out is not None:
        refuse_existing(out)
    spec, model = fit_model(slide, model, settings)
    windows = list_windows(spec, _corners(coords))
    try:
        predictor = new_predictor(model, windows, settings)
        two = [windows.size // 2, windows.size // 3] if windows.size else []
        dry = try_model(slide, predictor, windows, np.array(two, np.int64), settings)
        if out is not None:
            _refuse_dense(dry, out)
        run = _ListRun(slide, windows, predictor, dry, settings)
        if out is not None:
            run.keep_features()
        with logging_notices([run.record]):
            run.compute()
    finally:
        model.restore()
    if out is not None:
        kept = ListHeatmap(windows, run.values, run.state, run.record, features=run.features)
        save_list(kept, out)
    return run.values


def _corners(coords: Any) -> Any:
    """Corners as they are given, or those that an .h5 of CLAM, TRIDENT, STAMP or WSInfer holds."""
    return read_coords(coords).coords if isinstance(coords, (str, os.PathLike)) else coords


def _refuse_dense(dry: DryRun, out: Path) -> None:
    if dry.map_shape is not None:
        raise ModelOutputError(
            "a list of windows with dense outputs cannot be saved", out, "leave out= away"
        )


class _ListRun:
    """Windows of a list on their way through a model: what came of each, and a record of it."""

    def __init__(
        self,
        slide: Slide,
        windows: WindowList,
        predictor: Predictor,
        dry: DryRun,
        settings: RunSettings,
    ) -> None:
        self._slide, self._windows, self._settings = slide, windows, settings
        self._predictor, self._dry = predictor, dry
        self.values = np.full((windows.size, *value_shape(dry)), np.nan, np.float32)
        self.state = np.full(windows.size, PENDING, np.uint8)
        self.features: NDArray[np.float32] | None = None
        self._failures: dict[int, str] = {}
        self._timings = Timings(predictor.device.type, settings.reader_threads)
        self.record = self._new_record()

    def keep_features(self) -> None:
        """Keep the features as well, if the model gives some."""
        if self._dry.features is not None:
            self.features = empty_values((self._windows.size, self._dry.features), "features")

    def _new_record(self) -> dict[str, Any]:
        model = self._predictor.model
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "kind": LIST,
            "slide": describe_slide(self._slide),
            "model": describe_model(model, self._dry.names, spec_of(model), model.added),
            "list": list_to_json(self._windows),
            "settings": {"resize": self._settings.resize, "device": self._predictor.device.type},
            "batch_size": {"used": self._dry.batch_size},
            "halved": [],
            "notices": [*self._windows.spec.notices, *self._dry.notices],
            "counts": account(self.state),
            "versions": versions(),
            "begun": now(),
        }

    def compute(self) -> None:
        """Compute all windows.

        Raises
        ------
        HeatmapError
            If one of them was lost on the way.
        """
        with self._timings.spent("active"):
            self._work_off(self._new_loader())
        status, reason = outcome(self.state, None, "")
        self.record |= {
            "status": status,
            "reason": reason,
            "counts": account(self.state),
            "failed": list_failed(self.state, self._failures),
            **self._timings.record,
            "ended": now(),
        }
        if left := self.record["counts"]["pending"]:
            raise HeatmapError(
                f"{left} windows were given and never computed", self._slide.path, "report this"
            )

    def _new_loader(self) -> Loader:
        memory = self._settings.memory_bytes // 2
        return Loader(
            CachedSlide(self._slide, TileCache(memory)),
            self._windows,
            ListOrder(self._windows, np.ones(self._windows.size, bool)),
            threading.Event(),
            readers=self._settings.reader_threads,
            memory=memory,
            timings=self._timings,
        )

    def _work_off(self, loader: Loader) -> None:
        cutter = BatchCutter(self._windows, self._dry.batch_size, self._predictor.device)
        try:
            for loaded in self._timings.each("waiting", loader):
                self._failures |= loaded.failed
                self.state[list(loaded.failed)] = FAILED
                for batch in self._timings.each("copying", cutter.cut(loaded)):
                    self._compute(batch)
            for batch in cutter.tail():
                self._compute(batch)
        finally:
            loader.close()

    def _compute(self, batch: Batch) -> None:
        with self._timings.spent("copying", batch.patches.nbytes):
            seen = self._predictor.see(batch.patches)
        with self._timings.spent("model"):
            computed = self._predictor.compute(seen, len(batch.index), row_shape(self._dry))
            rows = computed.numpy()
        for halving in computed.halvings:
            note_halving(self.record, int(batch.index[halving.row]), halving)
        self._place(batch.index, rows)

    def _place(self, index: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        shape = value_shape(self._dry)
        rows = rows.reshape(len(rows), -1)
        values, features = np.split(rows, [math.prod(shape)], axis=1)
        self.values[index] = values.reshape(len(rows), *shape)
        if self.features is not None:
            self.features[index] = features
        finite = np.isfinite(rows).all(1)
        self.state[index] = np.where(finite, DONE, DONE | NOT_FINITE)
