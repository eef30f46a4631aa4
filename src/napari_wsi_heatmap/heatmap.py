"""A heatmap: values on cells, states of windows, and where both lie on the slide."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.frame import MapFrame
from napari_wsi_heatmap.grid import WindowGrid, WindowSpec
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Slide


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
    """

    values: NDArray[np.float32]
    index: NDArray[np.int64]
    positions: NDArray[np.float64]
    state: NDArray[np.uint8]
    model: str

    def __len__(self) -> int:
        return len(self.index)


class Heatmap:
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
    """

    def __init__(
        self,
        values: Any,
        state: NDArray[np.uint8],
        frame: MapFrame,
        run: Mapping[str, Any],
        path: Path | None = None,
    ) -> None:
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

    def to_dataframe(self) -> Any:
        """Windows that are done as a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            Columns x, y (top-left, level-0 pixels), then one per output; in grid order.
        """
        import pandas as pd

        index, values = self.window_values()
        positions = self.grid.positions(index)
        columns: dict[str, Any] = {"x": positions[:, 1], "y": positions[:, 0]}
        columns |= {name: values[:, c] for c, name in enumerate(self.names)}
        return pd.DataFrame(columns)

    def export(self, path: str | Path, *, slide: Slide | None = None, **options: Any) -> Path:
        """Write it as another format, chosen by the file's ending: csv, png.

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


def open_heatmap(path: str | Path) -> Heatmap:
    """Open what a run has saved, also while it still runs.

    Raises
    ------
    StoreError
        If the path holds no heatmap of ours.
    """
    from napari_wsi_heatmap.listmap import LIST, open_list
    from napari_wsi_heatmap.runfolder import folder_of, reading
    from napari_wsi_heatmap.store import HeatmapStore

    path = folder_of(path)
    store = HeatmapStore.open(path)
    record = store.read_record()
    with reading(path, "the record of the run"):
        if record.get("kind") == LIST:
            return open_list(path, record)
        frame = frame_from_json(record["frame"])
        store.refuse_misfit(frame)
        return Heatmap(store.values, store.state, frame, record, path)


def frame_to_json(frame: MapFrame) -> dict[str, Any]:
    """Everything that places the cells, as plain values."""
    return asdict(frame)


def frame_from_json(data: dict[str, Any]) -> MapFrame:
    """Rebuild what `frame_to_json` wrote."""
    grid = tuples(data["grid"])
    spec = WindowSpec(**tuples(grid.pop("spec")))
    return MapFrame(**{**tuples(data), "grid": WindowGrid(spec=spec, **grid)})


def tuples(data: dict[str, Any]) -> dict[str, Any]:
    """Turn the lists of JSON back into tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
