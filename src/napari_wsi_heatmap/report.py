"""What the record of a run says, in plain lines: for the command line, scripts and the dock."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

logger = logging.getLogger(__name__)

UNREADABLE = "could not be read"
NOT_FINITE = "values that are not finite"


def failed_line(counts: Mapping[str, int]) -> str:
    """How many windows failed; empty if none."""
    return f"{windows(counts['failed'])} {UNREADABLE}" if counts["failed"] else ""


def not_finite_line(counts: Mapping[str, int]) -> str:
    """How many windows have a value that is NaN or infinite; empty if none."""
    number = counts["not_finite"]
    return f"{windows(number)} {'has' if number == 1 else 'have'} {NOT_FINITE}" if number else ""


def windows(number: int) -> str:
    """1 window, 12,345 windows."""
    return f"{number:,} window{'' if number == 1 else 's'}"


def all_notices(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the user should know of one or more models, each line once."""
    notices = (notice for record in records for notice in record["notices"])
    return list(dict.fromkeys(notices))


@contextmanager
def logging_notices(records: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Log what a script's user should know: now what is planned, at the end what came of it.

    As log messages and not as warnings: a run cannot be made to have none, and a warning that is
    turned into an error would cost its result. Where nobody set up logging they go to stderr.
    """
    known = all_notices(records)
    _log(records, known)
    try:
        yield
    finally:
        _log(records, [notice for notice in all_notices(records) if notice not in known])
        for record in records:
            counts = record["counts"]
            _log([record], filter(None, [failed_line(counts), not_finite_line(counts)]))


def _log(records: Sequence[Mapping[str, Any]], lines: Iterable[str]) -> None:
    for line in lines:
        logger.warning("%s", one_line(f"{records[0]['slide']['name']}: {line}"))


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s, 1 h 5 min."""
    whole = round(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def record_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """A heatmap by its record, the most important first.

    Raises
    ------
    LookupError, TypeError, ValueError, AttributeError
        If it is not a whole record.
    """
    model = record["model"]
    yield one_line(f"{model['name']} on {record['slide']['name']}")
    for title, text in _parts(record):
        yield f"  {title:<11} {one_line(text, 400)}"


def _parts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "status", ": ".join(filter(None, (record["status"], record.get("reason", ""))))
    yield "slide", str(record["slide"]["path"])
    yield "windows", _counts(record["counts"])
    if "mil" in record:
        yield "prediction", prediction_line(record["mil"])
        yield "checkpoint", str(record["mil"]["provenance"]["mil"]["checkpoint"])
    yield "outputs", ", ".join(map(str, record["model"]["names"]))
    yield from _spent(record)
    for index, notice in enumerate(record.get("notices", ())):
        yield "notices" if index == 0 else "", str(notice)


def prediction_line(mil: Mapping[str, Any]) -> str:
    """What a MIL model says of the slide."""
    said = ", ".join(
        f"p_{c} = {p:.4f}" for c, p in enumerate(mil["probabilities"]) if p is not None
    )
    verdict = (
        "no classifier" if mil["prediction"] is None else f"class {mil['prediction']} ({said})"
    )
    return f"{verdict}, {mil['patches']:,} patches"


def _counts(counts: Mapping[str, int]) -> str:
    kinds = ("done", "background", "outside", "failed", "pending")
    parts = [f"{counts[kind]:,} {kind}" for kind in kinds if counts[kind]]
    if counts["not_finite"]:
        parts.append(f"{counts['not_finite']:,} with {NOT_FINITE}")
    return ", ".join(parts) or "none"


def _spent(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    seconds = record.get("seconds", {})
    if seconds:
        yield "time", ": ".join(filter(None, (duration(seconds["active"]), record.get("shares"))))
    if any(record.get("bytes", {}).values()):
        yield "pixels", ", ".join(f"{_size(n)} {name}" for name, n in record["bytes"].items())
    if record.get("bottleneck"):
        yield "limit", record["bottleneck"]


def _size(nbytes: float) -> str:
    """512 bytes, 3.4 MB."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = 0
    while nbytes >= 1000 and power < len(units) - 1:
        nbytes, power = nbytes / 1000, power + 1
    return f"{nbytes:.3g} {units[power]}"
