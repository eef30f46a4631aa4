"""Memory that runs out: how it is recognised, and what is given back before trying smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

SAYINGS: Final = ("out of memory", "t allocate memory", "not enough memory", "alloc_failed")
"""What the libraries below torch write: CUDA, its CPU allocator, that of Windows, cuBLAS."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that memory ran out."""
    return any(_says_so(cause) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _says_so(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(saying in text for saying in SAYINGS)


def give_back(device: torch.device) -> None:
    """Return to the device what torch keeps of memory that nobody uses."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a device could still give to tensors; None where that is not known."""
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


class PeakMemory:
    """Counts the most memory that was taken on a device since it was made; CUDA only.

    It resets torch's own peak statistics of the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self._before = 0
        if self._device is not None:
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)

    @property
    def nbytes(self) -> int:
        """Bytes above what was taken before; 0 where it is not known."""
        if self._device is None:
            return 0
        return torch.cuda.max_memory_allocated(self._device) - self._before
