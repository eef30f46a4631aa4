"""Large arrays that are used again, so that the system need not clear their pages each time."""

from __future__ import annotations

import math
import mmap
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Buffer = NDArray[np.uint8]


LARGE = 4 << 20
"""Bytes from which on huge pages make sense: first touching small ones takes longer than using."""


class ReusedArrays:
    """Hands out arrays again once nobody else holds them: no view, no tensor made of them.

    Nobody has to give anything back, and whoever keeps one, such as a model that collects what it
    saw, has it for good.

    Memory bound: as many arrays as were held at the same time. They lie in memory of their own,
    that goes back to the system as a whole: among the small things of the process they would
    leave holes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buffers: list[Buffer] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array with any content."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            buffer = self._large_enough(nbytes)
            array: NDArray[Any] = buffer[:nbytes].view(dtype).reshape(shape)
            return array

    def _large_enough(self, nbytes: int) -> Buffer:
        free = [i for i in range(len(self._buffers)) if _holders(self._buffers, i) == FREE]
        for i in free:
            if self._buffers[i].nbytes >= nbytes:
                return self._buffers[i]
        for i in reversed(free):
            del self._buffers[i]
        self._buffers.append(_new_buffer(nbytes))
        return self._buffers[-1]


def _new_buffer(nbytes: int) -> Buffer:
    try:
        return np.frombuffer(mmap.mmap(-1, max(1, nbytes), **PRIVATE), np.uint8)
    except OSError as error:
        raise MemoryError(f"no memory for {nbytes >> 20} MB") from error


def _holders(buffers: list[Buffer], i: int) -> int:
    return sys.getrefcount(buffers[i])


PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)
"""Else a fork would write where its parent does."""
FREE = _holders([np.empty(1, np.uint8)], 0)
"""What Python counts where only the list holds an array; this depends on its version."""
