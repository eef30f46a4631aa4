"""How many windows go through a model at once, where nobody said: found by trying.

From two windows on the size is doubled while a batch stays short and fits into memory. Of the
sizes tried, the largest is taken whose windows do not take markedly longer than in another: on a
CPU a large batch can be half as fast as a small one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

SMALLEST: Final = 2
"""Windows in a batch; alone in its batch a window's value can differ in the last bits."""
LARGEST: Final = 256
LARGEST_ON_CPU: Final = 32
"""More gains nothing there, and keeps a look elsewhere or a cancel waiting."""
LONGEST_BATCH_S: Final = 0.3
"""A batch chosen here should not keep the first colour, or a cancel, waiting for longer."""
TRIALS_S: Final = 1.0
"""All trials together should not take longer."""
LARGEST_BYTES: Final = 256 << 20
"""float32 pixels of a batch chosen here: what a model makes of them is often ten times that."""
SHARE_OF_FREE: Final = 0.7
"""Of a GPU's free memory: regions, and others on the same GPU, need some too."""
OVERHEAD_S: Final = 0.001
"""What a batch costs whatever its model: cutting, placing, handing over. Measured: 0.5-2 ms."""
MARKEDLY: Final = 1.15
"""Slower by this factor a window: beyond what measuring twice can differ by."""


@dataclass(frozen=True)
class Trial:
    """One batch size, tried."""

    size: int
    seconds: float
    """How long a batch took."""
    peak_bytes: int = 0
    """The memory it took; 0 where that is not known."""

    @property
    def seconds_a_window(self) -> float:
        """With what a batch costs besides the model."""
        return (self.seconds + OVERHEAD_S) / self.size


@dataclass(frozen=True)
class Room:
    """What a batch must fit into."""

    bytes_a_window: int
    """float32 pixels of a window."""
    largest: int = LARGEST
    free_bytes: int | None = None
    """Of the device; None where that is not known."""

    @classmethod
    def on(cls, device: torch.device, bytes_a_window: int, free_bytes: int | None) -> Room:
        """What a device has."""
        largest = LARGEST_ON_CPU if device.type == "cpu" else LARGEST
        return cls(bytes_a_window, largest, free_bytes)

    def holds_twice(self, trial: Trial) -> bool:
        """Whether a batch of twice the size should fit."""
        size = 2 * trial.size
        if size > self.largest or size * self.bytes_a_window > LARGEST_BYTES:
            return False
        return self.free_bytes is None or 2 * trial.peak_bytes <= SHARE_OF_FREE * self.free_bytes


def try_sizes(first: Trial, attempt: Callable[[int], Trial | None], room: Room) -> list[Trial]:
    """Double the batch size as long as that is short and fits.

    Parameters
    ----------
    first : Trial
        Of the smallest size.
    attempt : callable
        Tries a size; None if memory does not suffice.
    room : Room

    Returns
    -------
    list of Trial
        Those that may be used; `first` always is one.
    """
    trials, spent = [first], 0.0
    while room.holds_twice(trials[-1]) and _is_short(trials, spent):
        trial = attempt(2 * trials[-1].size)
        if trial is None or trial.seconds > LONGEST_BATCH_S:
            break
        trials.append(trial)
        spent += trial.seconds
    return trials


def _is_short(trials: Sequence[Trial], spent: float) -> bool:
    """Whether the next trial should be, going by how the last one compared with the one before."""
    last = trials[-1].seconds
    growth = min(2.0, last / max(trials[-2].seconds, 1e-9)) if len(trials) > 1 else 1.0
    return last * growth <= LONGEST_BATCH_S and spent + 2 * last <= TRIALS_S


def best_of(trials: Sequence[Trial]) -> Trial:
    """Return the largest whose windows do not take markedly longer than those of another."""
    limit = MARKEDLY * min(trial.seconds_a_window for trial in trials)
    return max((t for t in trials if t.seconds_a_window <= limit), key=lambda t: t.size)
