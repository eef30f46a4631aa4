"""Large arrays that are used again, so that the system need not clear their pages each time."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ReusedArrays:
    """Hands out arrays again once nobody else holds them: no view, no tensor made of them.

    Nobody has to give anything back, and whoever keeps one, such as a model that collects what it
    saw, has it for good.

    Memory bound: as many arrays as were held at the same time, at most `most` of them kept.
    """

    def __init__(self, most: int = 16) -> None:
        self._most, self._lock = most, threading.Lock()
        self._arrays: list[NDArray[Any]] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array with any content."""
        with self._lock:
            fitting = [i for i, a in enumerate(self._arrays) if a.shape == shape]
            for i in fitting:
                if self._arrays[i].dtype == dtype and _holders(self._arrays, i) == FREE:
                    return self._arrays[i]
            array = np.empty(shape, dtype)
            self._arrays = [*self._arrays[-self._most + 1 :], array]
            return array


def _holders(arrays: list[NDArray[Any]], i: int) -> int:
    return sys.getrefcount(arrays[i])


FREE = _holders([np.empty(1)], 0)
"""What Python counts where only the list holds an array; this depends on its version."""
