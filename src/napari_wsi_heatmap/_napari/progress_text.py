"""Plain lines about a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.report import duration, failed_line, not_finite_line, windows

if TYPE_CHECKING:
    from napari_wsi_heatmap.progress import Progress

STALLED_S = 5.0
"""Seconds without a window after which the line says so."""


def progress_line(progress: Progress | None) -> str:
    """How far it is, how fast it goes, how long it will take."""
    if progress is None:
        return ""
    line = f"{progress.done + progress.failed:,} of {progress.planned:,} windows"
    if progress.per_second > 0:
        line += f", {_rate(progress.per_second)} windows/s"
    if progress.seconds_left is not None and progress.per_second > 0:
        line += f", {duration(progress.seconds_left)} left"
    return line


def going_line(progress: Progress | None, still_s: float) -> str:
    """How a run goes that is neither paused nor over, and where its time goes.

    Parameters
    ----------
    still_s : float
        Seconds since its last window.
    """
    if progress is None:
        return "finding tissue and trying the model…"
    line = progress_line(progress)
    if still_s > STALLED_S:
        return f"{line}; nothing new for {still_s:.0f} s"
    limit = progress.bottleneck or progress.shares
    return f"{line}\n{limit}" if limit else line


def done_line(record: dict[str, Any], models: int = 1) -> str:
    """What a run that is over has done, from its record, or that of the first of its models."""
    counts, seconds = record["counts"], record["seconds"].get("active", 0.0)
    times = f" × {models} models" if models > 1 else ""
    done = f"done: {windows(counts['done'])}{times} in {duration(seconds)}"
    line = "; ".join(filter(None, [done, failed_line(counts), not_finite_line(counts)]))
    limit = record.get("bottleneck", "")
    return f"{line}\n{limit}" if limit else line


def cancelled_line(progress: Progress | None, why: str, out: object) -> str:
    """What is left of a run that was cancelled.

    Parameters
    ----------
    why : str
        Empty if the user did it.
    out : object
        Where it was saved, None if it was not.
    """
    word = f"cancelled, {why}" if why else "cancelled"
    if progress is None:
        return f"{word}: nothing was computed"
    line = f"{word}: {progress.done:,} of {progress.planned:,} windows are done"
    return line if out is None else f"{line} and saved; Run with the same output goes on"


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"
