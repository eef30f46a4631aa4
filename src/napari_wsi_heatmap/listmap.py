"""Heatmaps over windows that lie on no lattice: a list of positions, values and states.

The list is the truth; a map of cells is made from it for display. Positions that turn out to lie
on a lattice give one cell a window. Others are painted with their whole footprint on cells of a
quarter window, the mean where they overlap.

::

    OUT.zarr/
      zarr.json, 0            OME multiscales of the display map, as in `napari_wsi_heatmap.store`
      windows/coords          (N, 2) float64, top-left (y, x), level-0 pixels
      windows/values          (N, C) float32
      windows/state           (N,) uint8
      windows/features        (N, D) float32, only if the model gave features
      run.json
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
import zarr

from napari_wsi_heatmap.coords import list_windows
from napari_wsi_heatmap.errors import StoreError, StoreExistsError
from napari_wsi_heatmap.features import CHUNK
from napari_wsi_heatmap.frame import tuples
from napari_wsi_heatmap.grid import WindowSpec
from napari_wsi_heatmap.heatmap import Heatmap
from napari_wsi_heatmap.ome import describe
from napari_wsi_heatmap.runfolder import write_record, writing
from napari_wsi_heatmap.savedarray import SavedArray
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.frame import MapFrame

    Coords = NDArray[np.float64]
    Values = NDArray[np.float32]

LIST = "list"
"""The kind of a store that holds a list, in its record."""
STRIDES_A_WINDOW = 16
"""Finer lattices are none: whole numbers at random all lie on one of 1 px."""
CELLS_A_WINDOW = 4
"""Cells along a window that lies on no lattice."""
MOST_CELLS = 1 << 26
"""Cells of a display map at most; larger ones get larger cells."""


@dataclass(frozen=True)
class ListFrame:
    """Where the cells of a display map lie; compare `napari_wsi_heatmap.frame.MapFrame`."""

    grid: WindowList
    shape: tuple[int, int, int]
    scale: tuple[float, float]
    offset: tuple[float, float]
    on_lattice: bool
    dense: bool = False

    @property
    def channels(self) -> int:
        """C of the map."""
        return self.shape[0]


@final
class ListHeatmap(Heatmap):
    """Values of windows at given positions.

    Parameters
    ----------
    windows : WindowList
    listed : (N, C) float32
        Values of the windows.
    state : (N,) uint8
    run : dict
    path : Path, optional
    features : array-like (N, D), optional
        What the model gave beside the values.
    """

    def __init__(
        self,
        windows: WindowList,
        listed: Values,
        state: NDArray[np.uint8],
        run: Mapping[str, Any],
        path: Path | None = None,
        features: Any = None,
    ) -> None:
        self.listed = listed
        self._cells = frame_of_list(windows, listed.shape[1])
        # It offers what a finished map's readers ask of a MapFrame.
        super().__init__(None, state, cast("MapFrame", self._cells), run, path, features)

    @property
    def values(self) -> Values:
        """(C, My, Mx) float32 for display, made on first use; NaN where no window lies."""
        if self._values is None:
            done = state_of(self.state) == DONE
            self._values = rasterise(self._cells, self.positions[done], self.listed[done])
        return self._values

    @property
    def positions(self) -> Coords:
        """(N, 2) top-left corner (y, x) of each window, level-0 pixels."""
        return self.grid.positions(np.arange(self.grid.size))

    def window_values(self) -> tuple[NDArray[np.int64], Values]:
        """Indices (n,) into the list and values (n, C) of the windows that are done."""
        index = np.flatnonzero(state_of(self.state) == DONE)
        return index, self.listed[index]

    def window_features(self) -> Values:
        """Features (n, D) of the windows that are done, in the order of the list."""
        if self.features is None:
            raise StoreError("there are no features", self.path, "run a model that gives some")
        features: Values = np.asarray(self.features[:])[state_of(self.state) == DONE]
        return features


def frame_of_list(windows: WindowList, channels: int) -> ListFrame:
    """Find the cells of a display map: the windows' own lattice, or quarters of a window."""
    coords = windows.positions(np.arange(windows.size))
    window = windows.spec.footprint_level0
    steps = [_lattice_step(coords[:, axis], window[axis]) for axis in (0, 1)]
    origin = coords.min(0) if len(coords) else np.zeros(2)
    span = (np.ptp(coords, axis=0) if len(coords) else np.zeros(2)).tolist()
    if _fits(span, steps):
        my, mx = (round(s / c) + 1 for s, c in zip(span, steps, strict=True))
        offset = origin + (np.asarray(window) - 1) / 2
        return ListFrame(windows, (channels, my, mx), _pair(steps), _pair(offset), on_lattice=True)
    cell = _cell(span, window)
    my, mx = (math.ceil((s + w) / c) for s, w, c in zip(span, window, cell, strict=True))
    offset = origin + (np.asarray(cell) - 1) / 2
    return ListFrame(windows, (channels, my, mx), cell, _pair(offset), on_lattice=False)


def _fits(span: list[float], steps: list[float]) -> bool:
    cells = math.prod(s / c + 1 for s, c in zip(span, steps, strict=True))
    return not math.isnan(cells) and cells <= MOST_CELLS


def _lattice_step(positions: Coords, window: float) -> float:
    """Distance of a lattice that all positions lie on, NaN without one worth a cell."""
    different = np.unique(positions)
    if len(different) < 2:
        return window
    step = float(np.diff(different).min())
    cells = (different - different[0]) / step
    whole = np.abs(cells - np.rint(cells)).max() < 1e-3
    return step if whole and step >= window / STRIDES_A_WINDOW else math.nan


def _cell(span: list[float], window: tuple[float, float]) -> tuple[float, float]:
    cell = [side / CELLS_A_WINDOW for side in window]
    while math.prod((s + w) / c for s, w, c in zip(span, window, cell, strict=True)) > MOST_CELLS:
        cell = [2 * side for side in cell]
    return cell[0], cell[1]


def _pair(values: Any) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def rasterise(frame: ListFrame, coords: Coords, values: Values) -> Values:
    """Paint windows (n, 2), (n, C) on the cells of a frame; means where they overlap."""
    if frame.on_lattice:
        return _in_cells(frame, coords, values)
    total = np.zeros(frame.shape, np.float64)
    weight = np.zeros(frame.shape[1:], np.int64)
    window = np.asarray(frame.grid.spec.footprint_level0)
    side = np.maximum(1, np.rint(window / frame.scale))
    corner = np.asarray(frame.offset) - (np.asarray(frame.scale) - 1) / 2
    first = np.rint((coords - corner) / frame.scale).astype(np.int64)
    with np.errstate(invalid="ignore"):  # a model may return what is not finite
        for (y, x), value in zip(first.tolist(), values, strict=True):
            at = np.s_[y : y + int(side[0]), x : x + int(side[1])]
            total[:, *at] += value[:, None, None]
            weight[at] += 1
        return np.where(weight > 0, total / weight, np.nan).astype(np.float32)


def _in_cells(frame: ListFrame, coords: Coords, values: Values) -> Values:
    """The same where a window is a cell, for very many windows."""
    window, shape = np.asarray(frame.grid.spec.footprint_level0), frame.shape[1:]
    first = np.asarray(frame.offset) - (window - 1) / 2
    cell = np.ravel_multi_index(tuple(np.rint((coords - first) / frame.scale).T.astype(int)), shape)
    weight = np.bincount(cell, minlength=math.prod(shape))
    found = np.empty((frame.channels, weight.size), np.float32)
    with np.errstate(invalid="ignore"):  # a model may return what is not finite
        for c in range(frame.channels):
            total = np.bincount(cell, values[:, c], weight.size)
            found[c] = np.where(weight > 0, total / weight, np.nan)
    return found.reshape(frame.shape)


def save_list(heatmap: ListHeatmap, out: Path) -> None:
    """Write a list as a store, whole or not at all: it is made beside `out` and renamed.

    Raises
    ------
    StoreExistsError
        If there is anything at `out`.
    StoreFullError
        If it cannot be written.
    """
    refuse_existing(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
        folder.mkdir()  # with the rights that any new folder gets
        try:
            _write(heatmap, folder)
            os.replace(folder, out)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def refuse_existing(out: Path) -> None:
    """Refuse a path where anything is; a list is never continued."""
    if out.exists() or out.is_symlink():
        raise StoreExistsError("there is something already", out, "choose another output")


def open_list(path: Path, record: dict[str, Any]) -> ListHeatmap:
    """Open what `save_list` wrote, or a run over a list."""
    if "folded" in record["list"]:
        from napari_wsi_heatmap.folded import open_folded

        return open_folded(path, record)
    windows = zarr.open_group(store=str(path), mode="r")["windows"]
    coords, listed, state = (np.asarray(windows[n][:]) for n in ("coords", "values", "state"))  # type: ignore[index]
    spec = WindowSpec(**tuples(record["list"]["spec"]))
    features = SavedArray(windows["features"], path) if "features" in windows else None  # type: ignore[operator, index]
    return ListHeatmap(list_windows(spec, coords), listed, state, record, path, features)


def _write(heatmap: ListHeatmap, folder: Path) -> None:
    group = zarr.open_group(store=str(folder), mode="a", zarr_format=3)
    group.create_array(
        "0",
        data=heatmap.values,
        chunks=(1, 256, 256),
        fill_value=np.nan,
        dimension_names=("c", "y", "x"),
    )
    windows = group.create_group("windows")
    arrays = {"coords": heatmap.positions, "values": heatmap.listed, "state": heatmap.state}
    for name, data in arrays.items():
        windows.create_array(name, data=np.ascontiguousarray(data))
    if heatmap.features is not None:
        chunks = (CHUNK**2, heatmap.features.shape[1])
        windows.create_array("features", data=np.asarray(heatmap.features[:]), chunks=chunks)
    describe(group, heatmap.frame, ["0"], heatmap.run["model"]["name"])
    write_record(folder, heatmap.run)


def list_to_json(windows: WindowList) -> dict[str, Any]:
    """How the windows of a list are read, as plain values; their places are in the store."""
    return {"spec": asdict(windows.spec)}
