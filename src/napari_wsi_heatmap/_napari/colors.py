"""Which values the colour map spans, while most of them are still to come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float32]
    Limits = tuple[float, float]

COLORMAP = "turbo"
OPACITY = 0.5
BLENDING = "translucent_no_depth"

PERCENTILES = (1, 99)
"""A few extreme windows (a fold, a pen mark) must not take all the contrast."""
STEP = 0.05
"""Limits move only by at least this share of their range: colours must not flicker."""
SAMPLE = 1 << 14
"""Rows of values that are kept; percentiles of them cost a fraction of a millisecond."""
SAMPLE_VALUES = 1 << 22
"""Values that are kept of all channels together."""
CELLS_PER_WINDOW = 16


class ValueSample:
    """An even sample of all values so far; one thread adds, another asks.

    Parameters
    ----------
    channels : int
        Of the values; kept as an attribute.

    Notes
    -----
    Memory bound: 16 MB.
    """

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self._most = max(64, min(SAMPLE, SAMPLE_VALUES // channels))
        self._rows: list[Values] = [np.empty((0, channels), np.float32)]
        self._count, self._step, self._next = 0, 1, 0

    def add(self, values: Values) -> None:
        """Take values (n, C) or (n, C, h, w) into account."""
        rows = _rows(values)
        taken = rows[self._next :: self._step].copy()
        self._next = (self._next - len(rows)) % self._step
        if len(taken):
            self._rows.append(taken)
            self._count += len(taken)
        if self._count > self._most:
            self._thin_out()

    def _thin_out(self) -> None:
        kept = np.concatenate(self._rows)[::2]
        # One assignment: whoever asks meanwhile sees the old rows or the new ones.
        self._rows, self._count, self._step = [kept], len(kept), self._step * 2

    def limits(self, channel: int) -> Limits | None:
        """Low and high percentile of a channel's finite values, None while there are none."""
        return limits_in(np.concatenate([rows[:, channel] for rows in list(self._rows)]))


def limits_in(values: Values) -> Limits | None:
    """Low and high percentile of the finite of some values, None if there are none."""
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // SAMPLE)]
    finite = some[np.isfinite(some)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, PERCENTILES).tolist()
    if low >= high:
        low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (low, low + 1.0)


def widened(now: Limits | None, seen: Limits) -> Limits:
    """Limits that hold both, or `now` if they would hardly change."""
    if now is None:
        return seen
    low, high = min(now[0], seen[0]), max(now[1], seen[1])
    moved = (now[0] - low) + (high - now[1])
    return (low, high) if moved > STEP * (high - low) else now


def _rows(values: Values) -> Values:
    """(n, C[, h, w]) -> (m, C), a few cells of each window."""
    if values.ndim == 2:
        return values
    cells = values.reshape(*values.shape[:2], -1)
    step = -(-cells.shape[2] // CELLS_PER_WINDOW)
    return np.moveaxis(cells[:, :, ::step], 1, 2).reshape(-1, values.shape[1])
