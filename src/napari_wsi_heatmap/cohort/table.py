"""What a cohort leaves for people: one row a slide, and how the values are distributed over all."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.cohort.distribution import EXACTNESS, Distribution
from napari_wsi_heatmap.exports.target import written_at_once

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from napari_wsi_heatmap.cohort.facts import SlideFacts

SUMMARY, LIMITS = "summary.csv", "limits.json"
COLUMNS = (
    "slide", "status", "windows", "failed", "seconds", "prediction", "score", "error", "path",
    "out",
)  # fmt: skip


def row_of(facts: SlideFacts) -> list[Any]:
    """Cells of a slide's row."""
    score = "" if facts.score is None else f"{facts.score:.6g}"
    return [
        facts.slide, facts.status, facts.windows, facts.failed, f"{facts.seconds:.3f}",
        facts.prediction, score, facts.error, facts.path, facts.out,
    ]  # fmt: skip


def write_summary(path: Path, rows: Iterable[SlideFacts]) -> None:
    """Write the table, whole or not at all.

    Raises
    ------
    StoreFullError
        If it cannot be written.
    """
    with written_at_once(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(map(row_of, rows))


def write_limits(path: Path, values: Mapping[str, Distribution], slides: int) -> None:
    """Write limits and percentiles of each channel over all slides.

    Raises
    ------
    StoreFullError
        If they cannot be written.
    """
    channels = {name: values[name].to_json() for name in values}
    record = {"slides": slides, "exactness": EXACTNESS, "channels": channels}
    with written_at_once(path) as part:
        part.write_text(json.dumps(record, indent=1), encoding="utf-8")
