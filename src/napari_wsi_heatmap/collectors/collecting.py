"""The loop of a collecting: pieces come, rows go to the disk every few seconds.

>>> done = wh.collect(wh.stream("slides/", window=256), my_function, "out/", format="parquet")
>>> done.files, done.failed
"""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from napari_wsi_heatmap.collectors.folder import DONE, CollectedFolder
from napari_wsi_heatmap.collectors.origins import Ended, origin_of
from napari_wsi_heatmap.errors import StoreFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_wsi_heatmap.collectors.origins import Origin

FLUSH_S: Final = 3.0
"""Seconds between two flushes."""
ENDED, INTERRUPTED = "ended", "interrupted"


@dataclass(frozen=True)
class Collected:
    """What a collecting has left behind."""

    files: dict[Any, Path]
    """Slide -> its file; slides of which nothing was kept have none."""
    windows: dict[Any, int]
    """Slide -> how many of its windows are in its file."""
    failed: dict[Any, str]
    """Slides that could not be read, and why."""
    status: str
    """"done", or "ended" where the collector had seen enough."""


def collect(
    stream: Any,
    process: Any = None,
    out: Any = None,
    *,
    format: str = "csv",
    names: Any = None,
    flush_s: float = FLUSH_S,
    progress: bool = False,
) -> Collected:
    """Make something of every batch, and write it to one file per slide as it comes.

    Parameters
    ----------
    stream : Stream or Run
        What `napari_wsi_heatmap.stream` returns; or a planned run of the engine
        (`napari_wsi_heatmap.launch.prepare`), whose model is the processing.
    process : callable, Collector or model
        ``process(x, slides, windows)`` -> (N,), (N, C) or (N, C, h, w), one for each window; pieces
        of some of them; or None. An nn.Module, or a builtin model's name, is run in evaluation
        mode on the GPU if there is one.
    out : path
        A folder. What an earlier call of the same plan has left there is continued: its windows
        are neither read nor made again.
    format : str
        "csv" or "pdmcsv", which grow row by row; "store" (OME-Zarr), "h5", "parquet", "geojson" or
        any other export, which is made when a slide is done, from rows that grow beside it.
    names : sequence of str, or str, optional
        Of the channels; of one text names are made by numbers.
    flush_s : float
        Seconds between two flushes: what a crash can cost.
    progress : bool
        Show a bar of windows on stderr; to know how many there are, all slides are opened first.

    Returns
    -------
    Collected

    Raises
    ------
    HeatmapError
        If the folder holds something else, or was begun with another plan; what the stream, the
        processing or the disk raises. What was collected before is on the disk, in valid files,
        and the same call continues it.

    Notes
    -----
    Memory bound: the stream's, rows of `flush_s` seconds, and for formats that are made at the end
    the values of one slide.
    """
    origin = origin_of(stream, process)
    folder = CollectedFolder(out, origin, format, names)
    status = INTERRUPTED
    try:
        with _flushing(folder.flush, flush_s):
            status = _work_off(origin, folder, progress=progress)
    finally:
        folder.close(status)
    counts = folder.counts()
    files = {slide: folder.file_of(slide) for slide in counts}
    return Collected(files, counts, origin.failed, status)


def _work_off(origin: Origin, folder: CollectedFolder, *, progress: bool) -> str:
    """Take all pieces; how it ended."""
    from tqdm import tqdm

    order = {slide: number for number, slide in enumerate(origin.slides)}
    done = folder.done()
    total = origin.expected(done) if progress else None
    bar = tqdm(total=total, unit="win", disable=not progress)
    try:
        with bar, closing(cast("Any", origin.batches(done))) as batches:
            for pieces in batches:
                for piece in pieces:
                    folder.add(piece)
                bar.update(sum(map(len, pieces)))
                if pieces and origin.one_by_one:
                    latest = max(order.get(piece.slide, 0) for piece in pieces)
                    for slide in folder.begun:
                        if order[slide] < latest:
                            folder.finish(slide)
    except Ended:
        return ENDED
    return DONE


@contextmanager
def _flushing(flush: Callable[[], None], every_s: float) -> Iterator[None]:
    """Flush now and then by a thread of its own: a batch may take long, and so may a read."""
    over, troubles = threading.Event(), list[StoreFullError]()

    def work() -> None:
        while not over.wait(every_s):
            try:
                flush()
            except StoreFullError as full:  # tried again, and raised by the last flush
                troubles.append(full)

    thread = threading.Thread(target=work, name="collecting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    flush()
