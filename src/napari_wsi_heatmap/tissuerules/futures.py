"""`variance2` as tasks: tiles of tissue as they are found, by threads, processes or a cluster.

>>> for found in tiles_as_completed("slide.svs", client=client):     # a dask client, or an executor
...     print(found.coords, f"{found.done} of {found.of}")

Both passes of the notebook (JHancox/BioImaging, Notebook_2) look at the same pixels, which are read
once. A task opens the slide itself, and only places and variances travel.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_wsi_heatmap.errors import HeatmapError, SlideChangedError, SlideOpenError, one_line
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import AS_STORED, Slide
from napari_wsi_heatmap.tissuerules.given import VARIANCE
from napari_wsi_heatmap.tissuerules.values import above_both
from napari_wsi_heatmap.tissuerules.variance2 import SQUARE, TILE, square_variances

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    Squares = tuple[int, int, int, int]

ROWS, COLUMNS = 16, 32
"""Squares of 256 px that a task looks at: 4096 x 8192 px, 100 MB of pixels."""


class FoundTiles(NamedTuple):
    """Tiles of tissue that a task has found."""

    coords: NDArray[np.int64]
    """(n, 2) top-left corners (y, x), level-0 pixels."""
    variance: NDArray[np.float64]
    """(n,) of all values of a tile; inf where it could not be read."""
    done: int
    """Tasks that are done, this one included."""
    of: int
    """Tasks in all."""


class _Source(NamedTuple):
    """What a task needs to open the slide."""

    path: str
    backend: str
    icc: bool
    fingerprint: str


def tiles_as_completed(
    slide: str | os.PathLike[str] | Slide,
    threshold: float = VARIANCE,
    *,
    client: Any = None,
    level: int = 0,
) -> Iterator[FoundTiles]:
    """Search tiles of 64 px by the two-pass variance; yield them as tasks are done, in any order.

    Parameters
    ----------
    slide : path or Slide
    threshold : float
        Of the population variance; a tile and the square of 256 px around it must be above it.
    client : dask.distributed.Client or concurrent.futures.Executor, optional
        Who works; by default threads of this process. The processes of a client must be able to
        open the slide by its path.
    level : int
        That is read; tiles and squares are pixels of it.

    Yields
    ------
    FoundTiles
        Of each task, also if it found none. Together they are the tiles of
        ``tissue_windows(slide, 64, level=level, tissue="variance2:80")``.

    Raises
    ------
    SlideError
        If the slide cannot be opened, or a task finds another one there.
    HeatmapError
        If a task is lost.

    Notes
    -----
    Memory bound: 100 MB a task that runs. Nothing is read twice where the file's tiles divide
    2048 px.
    """
    opened = slide if isinstance(slide, Slide) else open_slide(slide)
    try:
        boxes = list(_boxes(opened, level))
        with _workers(client) as executor:
            source = _shared(opened, executor)
            futures = [executor.submit(search, source, level, box, threshold) for box in boxes]
            yield from _results(futures, opened.name)
    finally:
        if opened is not slide:
            opened.close()


def tile_table(
    slide: str | os.PathLike[str] | Slide,
    threshold: float = VARIANCE,
    *,
    client: Any = None,
    level: int = 0,
) -> Any:
    """Find the tiles of tissue of a slide, as a table.

    Parameters
    ----------
    slide, threshold, client, level
        As for `tiles_as_completed`.

    Returns
    -------
    pandas.DataFrame
        Columns x, y (top-left, level-0 pixels) and variance; row by row of the slide.
    """
    return as_table(tiles_as_completed(slide, threshold, client=client, level=level))


def as_table(found: Iterable[FoundTiles]) -> Any:
    """Tiles of all tasks as one table, row by row of the slide; see `tile_table`."""
    import pandas as pd

    parts = list(found)
    coords = np.concatenate([part.coords for part in parts])
    variance = np.concatenate([part.variance for part in parts])
    order = np.lexsort((coords[:, 1], coords[:, 0]))
    y, x = coords[order].T
    return pd.DataFrame({"x": x, "y": y, "variance": variance[order]})


def search(
    source: Slide | _Source, level: int, squares: Squares, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Tiles of tissue in some squares: what a task does.

    Parameters
    ----------
    source : Slide, or where to open it
    squares : (first row, last row + 1, first column, last column + 1)

    Returns
    -------
    coords : (n, 2) int64
    variance : (n,) float64
    """
    with _opened(source) as slide:
        tiles, around = square_variances(slide, level, squares)
        down = slide.levels[level].downsample
    found = above_both(tiles, around, threshold)
    first = np.array([squares[0], squares[2]]) * (SQUARE // TILE)
    corners = (np.argwhere(found) + first) * TILE
    return np.rint(corners * down).astype(np.int64), tiles[found]


@contextmanager
def _opened(source: Slide | _Source) -> Iterator[Slide]:
    """A slide that was handed over, else one of the task's own: none is shared across a fork."""
    if isinstance(source, Slide):
        yield source
        return
    with open_slide(source.path, source.backend, icc=source.icc) as slide:
        if slide.fingerprint != source.fingerprint:
            what = "a worker finds another slide there"
            raise SlideChangedError(what, source.path, "let all of them see the same files")
        yield slide


def _shared(slide: Slide, executor: Executor) -> Slide | _Source:
    """What tasks are given: threads of this process read the slide that is open."""
    if isinstance(executor, ThreadPoolExecutor):
        return slide
    if not os.path.exists(slide.path):
        do = "search it without a client, or save it as a file"
        raise SlideOpenError("it is in no file that others could open", slide.name, do)
    icc = slide.colours != AS_STORED
    return _Source(os.path.abspath(slide.path), slide.backend, icc, slide.fingerprint)


@contextmanager
def _workers(client: Any) -> Iterator[Executor]:
    """Whoever works, as an executor; one that is not ours goes on afterwards."""
    if client is None:
        with ThreadPoolExecutor(os.cpu_count()) as executor:
            yield executor
    elif isinstance(client, Executor):
        yield client
    else:
        yield client.get_executor(pure=False)


def _results(futures: list[Future[Any]], name: str) -> Iterator[FoundTiles]:
    """What tasks found, the first that is done first; whoever stops listening stops the rest."""
    try:
        for done, future in enumerate(as_completed(futures), 1):
            coords, variance = _result(future, name)
            yield FoundTiles(coords, variance, done, len(futures))
    finally:
        for future in futures:
            future.cancel()


def _result(future: Future[Any], name: str) -> Any:
    try:
        return future.result()
    except HeatmapError:
        raise
    except Exception as error:  # a worker that died, in its client's words
        what = f"a task was lost: {one_line(f'{type(error).__name__}: {error}', 200)}"
        raise HeatmapError(what, name, "look at the workers, and search again") from error


def _boxes(slide: Slide, level: int) -> Iterator[Squares]:
    if not 0 <= level < len(slide.levels):
        do = f"the slide has levels 0 to {len(slide.levels) - 1}"
        raise SlideOpenError(f"no level {level}", slide.name, do)
    rows, columns = (-(-side // SQUARE) for side in slide.levels[level].shape)
    for row in range(0, rows, ROWS):
        for column in range(0, columns, COLUMNS):
            yield row, min(row + ROWS, rows), column, min(column + COLUMNS, columns)
