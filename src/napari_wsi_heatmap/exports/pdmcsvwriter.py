"""PyDmed's rows, written window by window as they come, and what they leave out beside them.

The rows are exactly PyDmed's, so names of outputs, units and the slide stand in a JSON file beside
the csv, whose name has ``.json`` behind it.
"""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.exports.target import check_target, written_at_once
from napari_wsi_heatmap.rowfile import RowFile, whole_lines
from napari_wsi_heatmap.sides import pair_of
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import Slide

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from napari_wsi_heatmap.sides import Sides

FLUSH_S = 3.0
"""Seconds between two flushes."""


def average_downsample(base: tuple[int, int], shape: tuple[int, int]) -> float:
    """Level-0 pixels per pixel of a level as OpenSlide averages them, which PyDmed writes."""
    return (base[0] / shape[0] + base[1] / shape[1]) / 2


def head_of(
    shape: tuple[int, int], level: int, kernel: int, downsample: float, values: Iterable[int]
) -> str:
    """Everything of a row between its place and its values; `values` is their (C, h, w)."""
    channels, height, width = values
    level_part = f"{shape[0]}, {shape[1]}, {level}, {kernel}, {float(downsample)!r}"
    return f"{level_part}, {channels}, {height}, {width},"


def row_of(y: int, x: int, head: str, values: list[float]) -> str:
    """One row; `values` are Python floats, so that float32 is read back to the bit."""
    return f"{y}, {x}, {head}{', '.join(map(repr, values))}\n"


class PdmcsvWriter:
    """Writes the csv of one slide.

    Parameters
    ----------
    path : path-like
        Its folder must exist. What is there is gone, unless `append`.
    slide : Slide or path
        The slide that the windows are of.
    window : int
        Side of a window, pixels of the level.
    level : int
    names : sequence of str, optional
        Of the channels, for the JSON file.
    about : mapping, optional
        What else is to stand there; plain values.
    append : bool
        Go on behind the last whole row of an earlier session.
    flush_s : float
        Seconds after which rows are brought to the disk; `close` brings the rest.

    Raises
    ------
    ExportError
        If windows are not square, or the path is no place for a file.
    StoreFullError
        If it cannot be written.

    >>> with PdmcsvWriter("patient_1.csv", slide, window=256) as writer:
    ...     writer.write(values, windows)        # (N, C, h, w), (N, 2) level-0 (y, x)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        slide: Slide | str | os.PathLike[str],
        *,
        window: Sides,
        level: int = 0,
        names: Iterable[str] | None = None,
        about: Mapping[str, Any] | None = None,
        append: bool = False,
        flush_s: float = FLUSH_S,
    ) -> None:
        self.path = Path(path)
        check_target(self.path)
        height, width = pair_of(window, "window")
        if height != width:
            raise ExportError(
                f"pdmcsv knows square windows only, these are {height} x {width} px",
                self.path,
                "choose another format",
            )
        self._kernel, self._level = height, level
        self._head, self._flush_s, self._flushed = "", flush_s, time.monotonic()
        self._about = dict(about or {}) | {"names": None if names is None else list(names)}
        keep = whole_lines(self.path) if append and self.path.exists() else 0
        with nullcontext(slide) if isinstance(slide, Slide) else open_slide(slide) as looked:
            self._shape = looked.levels[level].shape
            self._down = np.asarray(looked.levels[level].downsample)
            self._downsample = average_downsample(looked.levels[0].shape, self._shape)
            self._file = RowFile(self.path, keep)
            self._tell(looked)

    def write(self, values: Any, windows: Any) -> None:
        """Write the values of some windows.

        Parameters
        ----------
        values : (N, C, h, w), (N, C) or (N,)
            Maps, or single values of each window.
        windows : (N, 2)
            Top-left (y, x), level-0 pixels.

        Raises
        ------
        ExportError
            If the values are of another shape, or not square: PyDmed could not place them.
        """
        values = np.asarray(values)
        if not np.issubdtype(values.dtype, np.floating):  # PyDmed could not read "True"
            values = values.astype(np.float64)
        maps = values.reshape(*values.shape, *[1] * (4 - values.ndim))
        corners = np.rint(np.asarray(windows).reshape(-1, 2) / self._down).astype(np.int64)
        self._check(maps, corners)
        if not len(maps):
            return
        rows = [
            row_of(y, x, self._head, row)
            for (y, x), row in zip(
                corners.tolist(), maps.reshape(len(maps), -1).tolist(), strict=True
            )
        ]
        self._file.add("".join(rows).encode("ascii"))
        if time.monotonic() - self._flushed >= self._flush_s:
            self.flush()

    def _check(self, maps: Any, corners: Any) -> None:
        shape = maps.shape[1:]
        if maps.ndim != 4 or len(maps) != len(corners) or shape[1] != shape[2]:
            raise ExportError(
                f"values are {maps.shape} for {len(corners)} windows",
                self.path,
                "give (N, C, h, h), (N, C) or (N,): PyDmed places square maps only",
            )
        head = head_of(self._shape, self._level, self._kernel, self._downsample, shape)
        if self._head not in ("", head):
            raise ExportError(
                f"values are now {shape}", self.path, "all windows of a file have the same shape"
            )
        self._head = head

    def flush(self) -> None:
        """Bring all rows to the disk."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Bring the rest to the disk; it may be written again afterwards."""
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _tell(self, slide: Slide) -> None:
        """Write what the rows leave out."""
        told = {
            "format": "pdmcsv",
            "generator": f"napari-wsi-heatmap {__version__}",
            "slide": {
                "name": slide.name,
                "path": slide.path,
                "fingerprint": slide.fingerprint,
                "shape": list(slide.levels[0].shape),
                "mpp": None if slide.mpp is None else list(slide.mpp),
            },
            "level": self._level,
            "level_shape": list(self._shape),
            "downsample": list(map(float, self._down)),
            "window": self._kernel,
            **self._about,
        }
        with written_at_once(beside(self.path)) as part:
            part.write_text(json.dumps(told, indent=1), encoding="utf-8")


def beside(path: Path) -> Path:
    """Where the JSON file of a csv lies."""
    return path.with_name(f"{path.name}.json")
