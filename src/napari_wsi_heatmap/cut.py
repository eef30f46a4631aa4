"""Windows cut from a region on the device, gathered into batches of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_wsi_heatmap.predict import enough_memory
from napari_wsi_heatmap.reused import ReusedArrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.loader import LoadedRegion
    from napari_wsi_heatmap.slides.base import Rgb

    Index = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Patches that go through the model together."""

    patches: torch.Tensor
    """(B, 3, kh, kw) uint8 on the device, channels last in memory; B never changes.

    The tail of the last one is zero.
    """
    index: Index
    """(n,) flat indices of the windows, n ≤ B."""


class Copier:
    """Copies regions to a device, each once, beside what the device computes."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]

    def copy(self, pixels: Rgb) -> Any:
        """(H, W, 3) uint8 on the device; on the CPU the array itself."""
        if self._device.type == "cpu":
            return pixels
        if self._stream is None:
            return torch.from_numpy(pixels).to(self._device)
        with torch.cuda.stream(self._stream):
            copied = torch.from_numpy(pixels).pin_memory().to(self._device, non_blocking=True)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        copied.record_stream(current)
        return copied


class BatchCutter:
    """Fills batches of a fixed size from regions.

    Windows that could not be read are left out. A batch may hold windows of several regions.

    Memory bound: the batch at hand, on the device.
    """

    def __init__(
        self, windows: WindowGrid | WindowList, batch_size: int, device: torch.device
    ) -> None:
        self._windows, self._device, self._size = windows, device, batch_size
        self._copier, self._arrays = Copier(device), ReusedArrays()
        self._index: list[Index] = []
        self._filled = 0
        self._patches: Any = None  # (B, kh, kw, 3) uint8
        self._begin()

    def _begin(self) -> None:
        height, width = self._windows.spec.footprint
        # Channels last, as regions are: then a row of a window is copied at one go.
        shape = (self._size, height, width, 3)
        with enough_memory(f"batches of {self._size} x {height} x {width} px"):
            # On the CPU NumPy copies them: torch would share each little copy out among its
            # threads, and wait for the one that a reader keeps from its core.
            cpu = self._device.type == "cpu"
            self._patches = (
                self._arrays.empty(shape, np.uint8)
                if cpu
                else torch.empty(shape, dtype=torch.uint8, device=self._device)
            )

    def cut(
        self, loaded: LoadedRegion, pixels: Any = None, wanted: Index | None = None
    ) -> Iterator[Batch]:
        """Take the windows of a region; yield each batch that gets full.

        Parameters
        ----------
        loaded : LoadedRegion
        pixels : optional
            The region's, copied to the device already.
        wanted : (n,) int64, optional
            Flat indices of the windows to take; all that could be read by default.
        """
        index = loaded.readable if wanted is None else wanted
        if not len(index):
            return
        if pixels is None:
            pixels = self._copier.copy(loaded.pixels)
        corners = self._windows.origins(index) - np.asarray(loaded.region.box[:2])
        at = 0
        while at < len(index):
            until = min(len(index), at + self._size - self._filled)
            self._fill(pixels, corners[at:until])
            self._index.append(index[at:until])
            at = until
            if self._filled == self._size:
                yield self._close()

    def _fill(self, pixels: Any, corners: Index) -> None:
        height, width = self._windows.spec.footprint
        first, self._filled = self._filled, self._filled + len(corners)
        if self._device.type != "cpu":
            self._patches[first : self._filled] = _gathered(pixels, corners, height, width)
            return
        for place, (y, x) in enumerate(corners.tolist(), start=first):
            self._patches[place] = pixels[y : y + height, x : x + width]

    def tail(self) -> Iterator[Batch]:
        """Yield the last batch, if it holds any window."""
        if self._filled:
            yield self._close()

    def _close(self) -> Batch:
        # Zeros, so that the tail is the same whatever came before it.
        self._patches[self._filled :] = 0
        patches: torch.Tensor = (
            torch.from_numpy(self._patches) if self._device.type == "cpu" else self._patches
        )
        batch = Batch(patches.permute(0, 3, 1, 2), np.concatenate(self._index))
        self._filled, self._index = 0, []
        self._begin()
        return batch


def _gathered(pixels: torch.Tensor, corners: Index, height: int, width: int) -> torch.Tensor:
    """Windows (n, h, w, 3) at corners (n, 2) of a region on a GPU, by one kernel."""
    at = torch.from_numpy(corners)
    if pixels.device.type == "cuda":  # pinned: else the copy would wait for the model
        at = at.pin_memory()
    at = at.to(pixels.device, non_blocking=True)
    rows = at[:, 0, None] + torch.arange(height, device=pixels.device)
    cols = at[:, 1, None] + torch.arange(width, device=pixels.device)
    return pixels[rows[:, :, None], cols[:, None, :]]
