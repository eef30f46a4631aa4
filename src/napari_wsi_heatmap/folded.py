"""Windows of a list, folded into rows, so that whatever knows a grid serves a list as well.

A run over given coordinates is then a run like any other: it keeps features, saves now and then,
survives a crash and is continued. Window i of the list is cell (i // 16, i % 16) of the grid; what
is left of the last row lies outside.

::

    OUT.zarr/
      0, state, features   folded as the grid is
      windows/coords       (N, 2) float64, top-left (y, x), level-0 pixels
      display              (C, My, Mx) float32, when done: the map, which alone is described as OME
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.features import CHUNK
from napari_wsi_heatmap.grid import WindowGrid
from napari_wsi_heatmap.runfolder import reading, writing
from napari_wsi_heatmap.savedarray import SavedArray
from napari_wsi_heatmap.selection import Selection
from napari_wsi_heatmap.states import HANGS_OVER, OUTSIDE, PENDING

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.listmap import ListHeatmap

    Index = NDArray[np.int64]

WIDTH: Final = CHUNK
"""Windows in a row: then a chunk of features holds windows that follow one another."""
EDGE: Final = "list"
FOLDED: Final = "folded"
"""In the record of a list's store: how many windows are folded."""


class FoldedGrid(WindowGrid):
    """A grid whose windows lie wherever a list says; made by `fold`.

    Attributes
    ----------
    windows : WindowList
    """

    windows: WindowList

    @property
    def overlap(self) -> int:
        """Pixels of the level that windows may share along an axis."""
        return self.windows.overlap

    @property
    def listed(self) -> int:
        """Number of windows in the list."""
        return self.windows.size

    def origins(self, index: Index) -> Index:
        """Top-left corners (n, 2) of windows, pixels of the level read."""
        return self.windows.origins(index)

    @property
    def hanging(self) -> NDArray[np.bool_]:
        """(Y, X): whether part of the window lies beyond the slide."""
        corners = self.windows.corners
        beyond = (corners + self.spec.footprint > self.level_shape) | (corners < 0)
        return folded(np.asarray(beyond.any(1)), self.shape, fill=False)


def fold(windows: WindowList, level_shape: tuple[int, int]) -> FoldedGrid:
    """Fold a list of at least one window into a grid."""
    rows = -(-windows.size // WIDTH)
    grid = FoldedGrid(windows.spec, level_shape, (rows, WIDTH), EDGE, windows.spec.notices)
    object.__setattr__(grid, "windows", windows)  # no field: a record need not hold it
    return grid


def folded(values: NDArray[Any], shape: tuple[int, int], fill: Any) -> NDArray[Any]:
    """Values (N,) of a list as (Y, X)."""
    whole = np.full(shape[0] * shape[1], fill, values.dtype)
    whole[: len(values)] = values
    return whole.reshape(shape)


@dataclass(frozen=True)
class ListSelection(Selection):
    """All windows of a list; where they lie is part of the plan's identity."""

    corners: Index

    @property
    def sha256(self) -> str:
        """Digest of the states and the places."""
        places = np.ascontiguousarray(self.corners, np.int64).tobytes()
        return hashlib.sha256(self.state.tobytes() + places).hexdigest()


def select_all(grid: FoldedGrid) -> ListSelection:
    """Compute every window of a list."""
    pending = np.full(grid.listed, PENDING, np.uint8)
    state = folded(pending, grid.shape, fill=OUTSIDE)
    state[grid.hanging] |= HANGS_OVER
    return ListSelection(state, grid.windows.corners)


def keep_places(path: Path, grid: FoldedGrid) -> None:
    """Write where the windows of a list lie into the store that is being written.

    Raises
    ------
    StoreFullError
        If it cannot be written.
    """
    import zarr

    positions = grid.windows.positions(np.arange(grid.listed))
    with writing(path):
        group = zarr.open_group(store=str(path), mode="r+")
        with suppress(StoreError):
            if np.array_equal(places_in(path), positions):
                return
        # NaN where a crash leaves no chunk: then they are written again.
        group.require_group("windows").create_array(
            "coords", data=positions, chunks=positions.shape, fill_value=np.nan, overwrite=True
        )
        group.attrs.pop("ome", None)  # what is folded is no picture


def places_in(path: Path) -> NDArray[np.float64]:
    """Top-left corners (N, 2) (y, x) of the windows of a list's store.

    Raises
    ------
    StoreError
        If they are not there.
    """
    import zarr

    with reading(path, "the places of the windows", "begin the run again: it continues"):
        found: Any = zarr.open_group(store=str(path), mode="r")["windows/coords"]
        coords: NDArray[np.float64] = np.asarray(found[:])
    if np.isnan(coords).any():
        do = "begin the run again: it continues"
        raise StoreError("the places of the windows are missing", path, do)
    return coords


def open_folded(path: Path, record: dict[str, Any]) -> ListHeatmap:
    """Open a store of a run over a list."""
    import zarr

    from napari_wsi_heatmap.coords import list_windows
    from napari_wsi_heatmap.frame import tuples
    from napari_wsi_heatmap.grid import WindowSpec
    from napari_wsi_heatmap.listmap import ListHeatmap

    number = record["list"][FOLDED]
    windows = list_windows(WindowSpec(**tuples(record["list"]["spec"])), places_in(path))
    group: Any = zarr.open_group(store=str(path), mode="r")
    values, state = np.asarray(group["0"][:]), np.asarray(group["state"][:])
    listed = np.ascontiguousarray(values.reshape(len(values), -1)[:, :number].T)
    saved = SavedArray(group["features"], path) if "features" in group else None
    features = None if saved is None else FoldedFeatures(saved, number)
    return ListHeatmap(windows, listed, state.ravel()[:number], record, path, features)


class FoldedFeatures:
    """Features (N, D) of a list, of those (Y, 16, D) of its store; read where they are indexed.

    Memory bound: the rows from the first to the last that are asked for.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, saved: SavedArray, number: int) -> None:
        self._saved = saved
        self.shape = number, saved.shape[2]
        self.chunks = CHUNK * WIDTH, saved.shape[2]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self[:], dtype)

    def __getitem__(self, at: Any) -> Any:
        at = at if isinstance(at, tuple) else (at,)
        rows = np.arange(len(self))[at[0]]
        if not rows.size:
            return np.empty((len(self), self.shape[1]), np.float32)[at]
        first, last = int(rows.min()) // WIDTH, int(rows.max()) // WIDTH
        near = self._saved[first : last + 1].reshape(-1, self.shape[1])[rows - first * WIDTH]
        return near[(..., *at[1:])] if len(at) > 1 else near


def show_places(path: Path, record: dict[str, Any]) -> None:
    """Add the map of a finished list to its store, and describe it as an image."""
    import zarr

    from napari_wsi_heatmap.ome import describe

    heatmap = open_folded(path, record)
    with writing(path):
        group = zarr.open_group(store=str(path), mode="r+")
        group.create_array(
            "display",
            data=heatmap.values,
            chunks=(1, 256, 256),
            fill_value=np.nan,
            dimension_names=("c", "y", "x"),
            overwrite=True,
        )
        describe(group, heatmap.frame, ["display"], record["model"]["name"])
