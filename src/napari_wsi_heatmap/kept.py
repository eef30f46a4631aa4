"""Outputs of windows that wait for their neighbours: in memory, the rest in scratch files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.growing import scratch_values

if TYPE_CHECKING:
    from napari_wsi_heatmap.growing import Values

SLAB_BYTES = 64 << 20
"""Each scratch file stays open, so they are few and large."""
MEMORY_BYTES = 256 << 20
"""Above it new slabs lie in scratch files that the operating system pages."""


class KeptOutputs:
    """Room for outputs of one shape, reused when they are dropped.

    Memory bound: `MEMORY_BYTES`, or one output if that is more; beyond it, as much scratch disk
    as windows wait.

    Parameters
    ----------
    shape : tuple of int
        (C, h, w) of an output, float32.
    what : str
        What they are, for the message that there is no room.
    """

    def __init__(self, shape: tuple[int, ...], what: str = "windows") -> None:
        self._shape, self._what = shape, what
        self._each = max(1, SLAB_BYTES // (4 * math.prod(shape)))
        self._slabs: list[Values] = []
        self._free: list[int] = []
        self._slots: dict[int, int] = {}

    def __len__(self) -> int:
        """Number of outputs."""
        return len(self._slots)

    def reserve(self, outputs: int) -> None:
        """Make room, so that the next so many are kept without fail.

        Raises
        ------
        StoreFullError
            If that needs a scratch file, and there is no room for one.
        """
        while len(self._free) < outputs:
            self._grow()

    def keep(self, i: int, output: Values) -> None:
        """Copy the output of a window.

        Raises
        ------
        StoreFullError
            If it needs a scratch file, and there is no room for one.
        """
        slot = self._slots.get(i)
        if slot is None:
            if not self._free:
                self._grow()
            slot = self._slots[i] = self._free.pop()
        self._at(slot)[:] = output

    def get(self, i: int) -> Values | None:
        """Output (C, h, w) of a window as a view; None if there is none."""
        slot = self._slots.get(i)
        return None if slot is None else self._at(slot)

    def drop(self, i: int) -> None:
        """Forget the output of a window, if there is one."""
        slot = self._slots.pop(i, None)
        if slot is not None:
            self._free.append(slot)

    def clear(self) -> None:
        """Forget all outputs, and their room."""
        self._slabs, self._free, self._slots = [], [], {}

    def _at(self, slot: int) -> Values:
        slab, place = divmod(slot, self._each)
        output: Values = self._slabs[slab][place]
        return output

    def _grow(self) -> None:
        shape = self._each, *self._shape
        in_memory = not self._slabs or (len(self._slabs) + 1) * self._bytes <= MEMORY_BYTES
        slab = np.empty(shape, np.float32) if in_memory else scratch_values(shape, self._what)
        first = len(self._slabs) * self._each
        self._slabs.append(slab)
        self._free[:0] = range(first + self._each - 1, first - 1, -1)  # the lowest is used first

    @property
    def _bytes(self) -> int:
        return 4 * self._each * math.prod(self._shape)
