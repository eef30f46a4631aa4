"""A heatmap: values on cells, states of windows, and where both lie on the slide."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.derived import DerivedMaps
from napari_wsi_heatmap.embedding.methods import FeatureMethods
from napari_wsi_heatmap.errors import ExportError, StoreError
from napari_wsi_heatmap.features import CHUNK
from napari_wsi_heatmap.frame import frame_from_json
from napari_wsi_heatmap.growing import boxes_of
from napari_wsi_heatmap.inspecting.methods import Inspected
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_wsi_heatmap.frame import MapFrame
    from napari_wsi_heatmap.slides.base import Slide


LARGEST_TABLE = 2 << 30
"""Bytes of features in a table in memory."""


@dataclass(frozen=True)
class Piece:
    """Values of some windows, as they come out of a run.

    Attributes
    ----------
    values : (N, C) or (N, C, h, w) float32
        NaN for a window that could not be read.
    index : (N,) int64
        Flat indices into the grid (Y, X).
    positions : (N, 2) float64
        Top-left corners (y, x), level-0 pixels.
    state : (N,) uint8
        See `napari_wsi_heatmap.states`.
    model : str
        Name of the model.
    features : (N, D) float32 or None
        None if the model gives none, and for windows that could not be read.
    """

    values: NDArray[np.float32]
    index: NDArray[np.int64]
    positions: NDArray[np.float64]
    state: NDArray[np.uint8]
    model: str
    features: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.index)


class Heatmap(DerivedMaps, FeatureMethods, Inspected):
    """The result of a run, whole or in part.

    Attributes
    ----------
    values : (C, My, Mx) float32
        NaN where nothing was computed; a window's state, not NaN, says whether it is done.
    state : (Y, X) uint8
        See `napari_wsi_heatmap.states`.
    names : tuple of str
        One per channel.
    grid : WindowGrid
    frame : MapFrame
        Where the cells lie.
    run : dict
        The record of the run.
    path : Path or None
        The store; None for one in memory.
    features : (Y, X, D) array or None
        What the model gave beside the values; None if it gave none.
    """

    def __init__(
        self,
        values: Any,
        state: NDArray[np.uint8],
        frame: MapFrame,
        run: Mapping[str, Any],
        path: Path | None = None,
        features: NDArray[np.float32] | None = None,
    ) -> None:
        self._features: Any = features
        self._values, self.state = values, state
        self.frame, self.grid = frame, frame.grid
        self.run, self.path = dict(run), path
        self.names: tuple[str, ...] = tuple(run["model"]["names"])

    @property
    def values(self) -> NDArray[np.float32]:
        """(C, My, Mx) float32, read from the store on first use."""
        if not isinstance(self._values, np.ndarray):
            self._values = np.asarray(self._values[:])
        return self._values

    @property
    def features(self) -> Any:
        """(Y, X, D) float32, NaN where nothing was computed; None if the model gave none.

        From a store they are read where they are indexed, and never kept: index a part, or hand
        it to ``dask.array.from_array``. While a run goes on they are those last saved.
        """
        if self._features is None and self.path is not None and self._length is not None:
            from napari_wsi_heatmap.store import HeatmapStore

            self._features = HeatmapStore.open(self.path).features
        return self._features

    @property
    def _length(self) -> int | None:
        """D, as the record has it."""
        length: int | None = self.run.get("plan", {}).get("features")
        return length

    @property
    def positions(self) -> NDArray[np.float64]:
        """(Y, X, 2) top-left corner (y, x) of each window, level-0 pixels."""
        index = np.arange(self.grid.size, dtype=np.int64)
        return self.grid.positions(index).reshape(*self.grid.shape, 2)

    @property
    def centres(self) -> NDArray[np.float64]:
        """(Y, X, 2) centre of each window; whole numbers are centres of level-0 pixels."""
        return self.positions + (np.asarray(self.grid.spec.footprint_level0) - 1) / 2

    @property
    def window_size(self) -> tuple[float, float]:
        """(height, width) of a window, level-0 pixels."""
        return self.grid.spec.footprint_level0

    def window_values(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Values of the windows that are done, in grid order.

        Returns
        -------
        index : (n,) flat indices
        values : (n, C)
            Of a dense map the mean of the window's cells.
        """
        index = np.flatnonzero(state_of(self.state) == DONE)
        rows, cols = np.divmod(index, self.grid.shape[1])
        if not self.frame.dense:
            return index, self.values[:, rows, cols].T
        boxes = map(self.frame.box, index.tolist())
        means = [_mean_of_finite(self.values[:, *box]) for box in boxes]
        return index, np.array(means, np.float32).reshape(len(index), len(self.names))

    def window_features(self) -> NDArray[np.float32]:
        """Features (n, D) of the windows that are done, in grid order.

        Memory bound: what it returns, and one chunk of the store.

        Raises
        ------
        StoreError
            If the model gave none, or they are damaged.
        """
        done, features = state_of(self.state) == DONE, self.features
        if features is None:
            raise StoreError("there are no features", self.path, "run a model that gives some")
        rows = np.cumsum(done).reshape(done.shape) - 1
        found = np.empty((np.count_nonzero(done), features.shape[2]), np.float32)
        for box in boxes_of(done.shape, CHUNK):
            if done[box].any():
                found[rows[box][done[box]]] = features[box][done[box]]
        return found

    def to_dataframe(self, *, features: bool = True) -> Any:
        """Windows that are done as a pandas DataFrame.

        Parameters
        ----------
        features : bool
            With a column for each feature, if there are any.

        Returns
        -------
        pandas.DataFrame
            Columns x, y (top-left, level-0 pixels), then one per output, then latent_0,
            latent_1, … of the features; in grid order.

        Raises
        ------
        ExportError
            If the features would take more than `LARGEST_TABLE` bytes.
        """
        import pandas as pd

        index, values = self.window_values()
        positions = self.grid.positions(index)
        columns: dict[str, Any] = {"x": positions[:, 1], "y": positions[:, 0]}
        columns |= {name: values[:, c] for c, name in enumerate(self.names)}
        if features and self.features is not None:
            self._refuse_large_table(len(index))
            columns |= {f"latent_{d}": f for d, f in enumerate(self.window_features().T)}
        return pd.DataFrame(columns)

    def _refuse_large_table(self, windows: int) -> None:
        nbytes = 4 * windows * self.features.shape[-1]
        if nbytes > LARGEST_TABLE:
            raise ExportError(
                f"a table of the features of {windows} windows would take {nbytes >> 20} MB",
                self.path,
                "leave them out (features=False), or read heatmap.features piece by piece",
            )

    def export(self, path: str | Path, *, slide: Slide | None = None, **options: Any) -> Path:
        """Write it as another format, chosen by the file's ending or `format`.

        See `napari_wsi_heatmap.exports`: csv, geojson, h5, parquet, png, jpg, tiff, json,
        pdmcsv, zarr.

        Parameters
        ----------
        path : path-like
        slide : Slide, optional
            Drawn below a picture; without it the map alone is drawn.

        Returns
        -------
        Path
        """
        exports = importlib.import_module("napari_wsi_heatmap.exports")
        written: Path = exports.export(self, Path(path), slide=slide, **options)
        return written

    def __repr__(self) -> str:
        channels, height, width = self.frame.shape
        where = "in memory" if self.path is None else str(self.path)
        done = int(np.count_nonzero(state_of(self.state) == DONE))
        return (
            f"<Heatmap {', '.join(self.names)}: {channels} x {height} x {width} cells, "
            f"{done} of {self.grid.size} windows done, {where}>"
        )


def _mean_of_finite(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the cells (C, h, w) of a window that have a value; NaN where none has."""
    finite = np.isfinite(cells)
    with np.errstate(invalid="ignore"):
        return np.where(finite, cells, 0).sum((1, 2)) / finite.sum((1, 2))


def open_heatmap(
    path: str | Path, slide: Slide | str | Path | None = None, *, window: int | None = None
) -> Heatmap:
    """Open what a run has saved, also while it still runs, or a file that others wrote.

    Parameters
    ----------
    path : path-like
        A store; or a csv, h5, geojson, parquet or pdmcsv file with values and places of windows.
    slide : Slide or path, optional
        Of a file: the slide that it lies on. A store knows its own.
    window : int, optional
        Of a file that does not say it: side of a window, level-0 pixels.

    Raises
    ------
    StoreError
        If the path holds no heatmap of ours, and no file that a map can be had from.
    """
    from napari_wsi_heatmap.listmap import LIST, open_list
    from napari_wsi_heatmap.runfolder import folder_of, reading
    from napari_wsi_heatmap.store import HeatmapStore

    path = folder_of(path)
    if path.is_file():
        opened: Heatmap = importlib.import_module("napari_wsi_heatmap.imports").open_file(
            path, slide, window
        )
        return opened
    store = HeatmapStore.open(path)
    record = store.read_record()
    with reading(path, "the record of the run"):
        if record.get("kind") == LIST:
            return open_list(path, record)
        frame = frame_from_json(record["frame"])
        store.refuse_misfit(frame, record["plan"].get("features"))
        return Heatmap(store.values, store.state, frame, record, path)
