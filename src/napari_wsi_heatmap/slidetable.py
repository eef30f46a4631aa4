"""Folders and tables that list slides; those of a cohort and of a stream are the same."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING, NamedTuple

from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.slides import SLIDE_EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = ("slide", "path", "slide_path", "filename", "file", "slide_id", "image")
"""Names that the column of slides may have, the first found counts."""
ENDINGS = (*SLIDE_EXTENSIONS, ".zarr")
"""Of what is a slide in a folder."""


class SlideTable(NamedTuple):
    """Rows of a .csv, one a slide."""

    path: Path
    heading: list[str]
    """In small letters; empty if the table is one column without a heading."""
    at: int
    """Column of the slides."""
    rows: list[list[str]]

    def slides(self) -> Iterator[tuple[Path, list[str]]]:
        """Path of each slide, relative ones being relative to the table, and its row.

        Raises
        ------
        SlideOpenError
            If a row has none.
        """
        for row in self.rows:
            text = row[self.at].strip() if self.at < len(row) else ""
            if not text:
                what = f"a row without a slide: {','.join(row)}"
                raise SlideOpenError(what, self.path, "fill it or remove it")
            yield self.path.parent / os.path.expanduser(text), row


def read_slide_table(path: Path) -> SlideTable:
    """Read a .csv with a column of `COLUMNS`, or of one column without a heading.

    Raises
    ------
    SlideOpenError
        If it cannot be read, or no column is one of slides.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = f"the list cannot be read: {getattr(error, 'strerror', None) or error}"
        raise SlideOpenError(what, path, "give a .csv in UTF-8") from error
    heading = [cell.strip().lower() for cell in rows[0]] if rows else []
    at = next((heading.index(name) for name in COLUMNS if name in heading), None)
    if at is not None:
        return SlideTable(path, heading, at, rows[1:])
    if len(heading) > 1:
        what = f"call it {COLUMNS[0]} or {COLUMNS[1]}"
        raise SlideOpenError("no column of slides", path, what)
    return SlideTable(path, [], 0, rows)
