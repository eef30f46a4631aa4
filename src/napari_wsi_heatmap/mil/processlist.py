"""The process list: a CSV of the slides to work on, with what is known of each.

Columns: ``slide_id`` (with or without ending), ``label``, ``process`` (1 or 0), ``features_path``,
``coords_path``, ``x1``, ``y1``, ``x2``, ``y2`` (level-0 pixels), the column that names one of
several folders, and CLAM's of tissue segmentation. All but the first may be missing, and an empty
cell is as good as none.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import one_line
from napari_wsi_heatmap.mil.configkinds import WrongValueError, flag
from napari_wsi_heatmap.mil.yamlfile import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    Row = dict[str, str]

ID = "slide_id"
LABEL, PROCESS = "label", "process"
FEATURES, COORDS = "features_path", "coords_path"
BOX = ("x1", "y1", "x2", "y2")
LARGEST = 64 << 20
"""Bytes of a list at most."""


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a list that are to be processed; cells are text, empty ones left out.

    Raises
    ------
    ConfigError
        If it is no table, has no slide ids, or names a slide twice.
    """
    table = _table(path)
    if ID not in table[0]:
        close = difflib.get_close_matches(ID, table[0], n=1, cutoff=0.5)
        hint = f": is it {close[0]!r}?" if close else ""
        what = f"the process list has no column {ID}{hint}"
        raise ConfigError(what, path, f"it has {', '.join(table[0][:12])}")
    _refuse_same_columns(table[0], path)
    rows = []
    for cells in table[1:]:
        row = {column: cell for column, cell in zip(table[0], cells, strict=True) if cell}
        if ID not in row:
            raise ConfigError(f"a row has no {ID}: {', '.join(cells)}", path, "fill it in")
        if _wanted(row, path):
            rows.append(row)
    return rows


def _refuse_same_columns(header: list[str], path: Path) -> None:
    doubles = [name for name, times in Counter(header).items() if name and times > 1]
    if doubles:
        raise ConfigError(f"column {doubles[0]!r} stands there twice", path, "remove one")


def read_preset(path: Path) -> Row:
    """Read a table of one row."""
    table = _table(path)
    if len(table) != 2:
        raise ConfigError(f"a preset has one row, this has {len(table) - 1}", path, "leave one")
    return {column: cell for column, cell in zip(*table, strict=True) if cell}


def _wanted(row: Row, path: Path) -> bool:
    try:
        return PROCESS not in row or flag(row[PROCESS])
    except WrongValueError as error:
        what = f"column {PROCESS} of {row.get(ID)} is {row[PROCESS]!r}"
        raise ConfigError(what, path, "give 1 or 0") from error


def _table(path: Path) -> list[list[str]]:
    """Header and cells of a CSV, all as text without blanks around it: an id 007 is no number."""
    content = _content(path)
    try:
        text = content.decode("utf-8-sig")
        # Where the comma is the decimal point, spreadsheets write semicolons.
        head = text.partition("\n")[0]
        mark = ";" if ";" in head and "," not in head else ","
        lines = [
            [cell.strip() for cell in row]
            for row in csv.reader(io.StringIO(text), delimiter=mark, strict=True)
        ]
    except (csv.Error, UnicodeError) as error:
        raise ConfigError(
            f"no CSV table: {one_line(error, 150)}", path, "save it as CSV"
        ) from error
    rows = [(number, line) for number, line in enumerate(lines, 1) if any(line)]
    if not rows:
        raise ConfigError("the table is empty", path, f"give a header with {ID}, and rows")
    header = rows[0][1]
    return [header, *(_as_wide(line, len(header), number, path) for number, line in rows[1:])]


def _as_wide(line: list[str], width: int, number: int, path: Path) -> list[str]:
    if any(line[width:]):
        what = f"line {number} has {len(line)} cells under {width} column names"
        raise ConfigError(what, path, "see whether a comma belongs into quotes")
    return (line + [""] * width)[:width]


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"the table cannot be read: {error.strerror}", path) from error
    if len(content) > LARGEST or b"\0" in content:
        raise ConfigError("no CSV table, or a far too large one", path, "save it as CSV")
    return content


def refuse_doubles(ids: Sequence[str], path: Path, where: Sequence[object] = ()) -> None:
    """Refuse ids that stand for several slides: their results would have the same names.

    Raises
    ------
    ConfigError
        Naming the first ones.
    """
    doubles = [one for one, times in Counter(ids).items() if times > 1]
    if doubles:
        shown = ", ".join(doubles[:3]) + (", …" if len(doubles) > 3 else "")
        places = [str(place) for one, place in zip(ids, where, strict=False) if one == doubles[0]]
        told = f" ({', '.join(places[:3])})" if places else ""
        several = "slide id stands" if len(doubles) == 1 else "slide ids stand"
        what = f"{len(doubles)} {several} there more than once: {shown}{told}"
        raise ConfigError(what, path, "give each slide one row, and an id of its own")


def box_of(row: Row) -> tuple[float, float, float, float] | None:
    """Region of interest (y0, x0, y1, x1) of a row, level-0 pixels; None without one.

    Raises
    ------
    ConfigError
        If the columns are filled in in part, are no numbers or no box.
    """
    given = [row[column] for column in BOX if column in row]
    if not given:
        return None
    try:
        x1, y1, x2, y2 = (float(row[column]) for column in BOX)
    except (KeyError, ValueError):
        x1 = y1 = x2 = y2 = 0.0
    if not (0 <= x1 < x2 < 2**31 and 0 <= y1 < y2 < 2**31):
        what = f"x1, y1, x2, y2 are {', '.join(row.get(column, 'empty') for column in BOX)}"
        raise ConfigError(what, row[ID], "give level-0 pixels, x1 < x2 and y1 < y2, or none")
    return y1, x1, y2, x2


def write_list(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a process list; never over a file."""
    from napari_wsi_heatmap.exports.target import written_at_once
    from napari_wsi_heatmap.mil.experiment import refuse_existing

    refuse_existing(path)
    with written_at_once(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
