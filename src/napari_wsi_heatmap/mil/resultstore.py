"""Results of MIL models on disk: each is a heatmap store of its own, whole or not there.

::

    OUT.zarr/mil/<checkpoint>-<sha256>.zarr/
      0          channels score, attention*, weight*, instance*; see `channels_of`
      state      done: in the bag; failed: left out of it
      run.json   as of any heatmap, and "mil": logits, probabilities, prediction, provenance

It is made beside its place and renamed; a crash at any instant leaves the old one or the new one,
and is swept up by the next save.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.heatmap import Heatmap, open_heatmap
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.mil.result import FOLDER, MilResult
from napari_wsi_heatmap.mil.resultrecord import bag_from, channels_of, new_record
from napari_wsi_heatmap.runfolder import writing
from napari_wsi_heatmap.states import DONE, FAILED, HANGS_OVER, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.listmap import ListHeatmap
    from napari_wsi_heatmap.slides.base import Slide

NEW: Final = ".new"
OLD: Final = ".old"
"""How the names end of what a save at hand is making, and of what it replaces."""


def save_in_store(result: MilResult, out: Path, name: str | None = None) -> Path:
    """Save the result for features of a store beside them.

    Raises
    ------
    StoreLockedError
        If another process saves a result there at this moment.
    StoreFullError
        If it cannot be written.
    """
    source = open_heatmap(out)
    heatmap = heatmap_on(result, source)
    folder = out / FOLDER
    with writing(out):
        folder.mkdir(exist_ok=True)
        lock = StoreLock(folder)
        try:
            recover(folder)
            return _replaced(heatmap, folder / f"{name or name_of(result)}.zarr")
        finally:
            lock.release()


def name_of(result: MilResult) -> str:
    """Name of a result in a store: that of the checkpoint, and what tells it from others."""
    from napari_wsi_heatmap.several import file_name

    mil = result.provenance["mil"]
    parts = [file_name(Path(mil["checkpoint"]).stem), mil["sha256"][:8]]
    if mil["attention"] != mil["attentions"][0]:
        parts.append(file_name(mil["attention"]))
    return "-".join(parts)


def recover(folder: Path) -> None:
    """Remove what a killed save has left, or finish it; only who holds the lock may."""
    for new in folder.glob(f".*{NEW}"):
        shutil.rmtree(new, ignore_errors=True)
    for old in folder.glob(f".*{OLD}"):
        place = folder / old.name.removeprefix(".").removesuffix(OLD)
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, place)


def _replaced(heatmap: Heatmap, path: Path) -> Path:
    """Write a heatmap, then put it in the place of what was there."""
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}", suffix=NEW, dir=path.parent))
    old = path.parent / f".{path.name}{OLD}"
    try:
        _write(heatmap, new)
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return path


def _write(heatmap: Heatmap, folder: Path) -> None:
    from napari_wsi_heatmap.listmap import ListHeatmap, save_list

    if isinstance(heatmap, ListHeatmap):
        folder.rmdir()  # it was made to have the name
        save_list(heatmap, folder)
    else:
        _write_grid(heatmap, folder)


def _write_grid(heatmap: Heatmap, folder: Path) -> None:
    from napari_wsi_heatmap.growing import CHUNK, boxes_of
    from napari_wsi_heatmap.store import HeatmapStore

    store = HeatmapStore.create(folder, heatmap.frame, heatmap.state, CHUNK, heatmap.run)
    try:
        for box in boxes_of(heatmap.frame.shape[1:], CHUNK):
            store.write_values(box, heatmap.values[:, *box])
        store.finish(heatmap.frame, heatmap.run["model"]["name"])
    finally:
        store.release()


def heatmap_on(result: MilResult, source: Heatmap) -> Heatmap:
    """Lay a result on the windows of the heatmap that its features belong to."""
    from napari_wsi_heatmap.listmap import ListHeatmap

    assert result.index is not None
    names, channels = channels_of(result.bag)
    state = source.state.copy()
    left_out = (state_of(state) == DONE).ravel()
    left_out[result.index] = False
    state.ravel()[left_out] = (state.ravel()[left_out] & np.uint8(HANGS_OVER)) | np.uint8(FAILED)
    state.ravel()[result.index] &= np.uint8(HANGS_OVER | 0x0F)
    values = _spread(channels, result.index, state.size)
    record = new_record(result, names, source.run, state, np.flatnonzero(left_out))
    if isinstance(source, ListHeatmap):
        from napari_wsi_heatmap.coords import WindowList

        spec, grid = source.grid.spec, source.grid
        corners = grid.origins(np.arange(grid.size))
        return ListHeatmap(WindowList(spec, corners), values, state, record)
    return _on_grid(source, values, state, record)


def _on_grid(
    source: Heatmap, values: NDArray[np.float32], state: NDArray[np.uint8], record: dict[str, Any]
) -> Heatmap:
    from napari_wsi_heatmap.frame import frame_to_json, lay_frame

    frame = lay_frame(source.grid, values.shape[1])
    on_grid = np.ascontiguousarray(values.T).reshape(-1, *source.grid.shape)
    return Heatmap(on_grid, state, frame, record | {"frame": frame_to_json(frame)})


def _spread(
    channels: NDArray[np.float32], index: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    values = np.full((size, channels.shape[1]), np.nan, np.float32)
    values[index] = channels
    return values


def save_listed(result: MilResult, out: Path, slide: Slide | None) -> Path:
    """Save the result for features of a file as a heatmap store of its own."""
    from napari_wsi_heatmap.listmap import save_list

    save_list(listed_heatmap(result, slide), out)
    return out


def listed_heatmap(result: MilResult, slide: Slide | None) -> ListHeatmap:
    """Lay a result on a slide, at the coordinates of its patches.

    Raises
    ------
    StoreError
        If nothing says where they lie, or how large they are, or on which slide.
    """
    from napari_wsi_heatmap.coords import list_windows
    from napari_wsi_heatmap.grid import WindowSpec
    from napari_wsi_heatmap.listmap import LIST, ListHeatmap, list_to_json
    from napari_wsi_heatmap.record import describe_slide

    if result.coords is None or result.patch_size is None or slide is None:
        what = "nothing says on which slide the patches lie, where, and how large they are"
        raise StoreError(what, do="give the slide, and read features with their coordinates")
    height, width = (max(1, round(side)) for side in result.patch_size)
    spec = WindowSpec(0, (1.0, 1.0), *((height, width),) * 3, slide.mpp)
    windows = list_windows(spec, result.coords)
    names, channels = channels_of(result.bag)
    state = np.full(len(result), DONE, np.uint8)
    source = {"slide": describe_slide(slide), "kind": LIST, "list": list_to_json(windows)}
    record = new_record(result, names, source, state, np.zeros(0, np.int64))
    return ListHeatmap(windows, channels, state, record)


def read_result(path: Path, record: dict[str, Any]) -> MilResult:
    """Read what was saved."""
    heatmap = open_heatmap(path)
    index, values = heatmap.window_values()
    mil = record["mil"]
    return MilResult(
        bag_from(mil, values),
        heatmap.grid.positions(index),
        heatmap.window_size,
        index,
        mil["provenance"],
        tuple(record["notices"]),
        path,
    )
