"""States of windows: the one place that says what is done, and what never will be.

One byte a window. The low four bits are the state, the others are flags. NaN in a map never
means "not done": a model may return it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PENDING: Final = 0
DONE: Final = 1
BACKGROUND: Final = 2
OUTSIDE: Final = 3
FAILED: Final = 4

STATE_BITS: Final = 0x0F
HANGS_OVER: Final = 0x10
"""Flag: part of the window lies beyond the slide and was filled with the background colour."""
NOT_FINITE: Final = 0x20
"""Flag: a value or feature of the window is NaN or infinite."""

NAMES: Final = {
    PENDING: "pending",
    DONE: "done",
    BACKGROUND: "background",
    OUTSIDE: "outside",
    FAILED: "failed",
}


def state_of(states: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Strip the flags."""
    return states & np.uint8(STATE_BITS)


def count_states(states: NDArray[np.uint8]) -> dict[str, int]:
    """Count windows by the name of their state, and those with a value that is not finite."""
    bare = state_of(states)  # one byte a window: millions are counted while a run goes on
    named = {name: int(np.count_nonzero(bare == state)) for state, name in NAMES.items()}
    return {**named, "not_finite": int(np.count_nonzero(states & NOT_FINITE))}
