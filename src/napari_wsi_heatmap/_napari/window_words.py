"""What is said of a window under the cursor: why it failed, or whose value it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_wsi_heatmap.states import FAILED, PENDING, STATE_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

PENDING_YET = "not computed"
NEARBY = "not computed: shows a window nearby"


def word_of(
    state: NDArray[np.uint8],
    reasons: Mapping[int, str],
    window: tuple[int, int],
    *,
    shows_value: bool = False,
) -> str:
    """Say what a value does not tell; empty for most windows.

    Parameters
    ----------
    state : (Y, X) uint8
    reasons : mapping
        Flat index of a window that failed -> why.
    window : (row, column)
    shows_value : bool
        Whether there is a value where it lies; that of a pending window is another one's.
    """
    now = int(state[window]) & STATE_BITS
    if now == FAILED:
        why = reasons.get(window[0] * state.shape[1] + window[1])
        return f"failed: {why}" if why else "failed"
    if now == PENDING:
        return NEARBY if shows_value else PENDING_YET
    return ""
