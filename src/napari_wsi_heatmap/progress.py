"""How far a run has come, for displays."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    planned: int
    """Windows to compute in all, those of earlier sessions included."""
    done: int
    failed: int
    per_second: float
    """Windows per second of this session, pauses left out."""
    seconds_left: float | None
