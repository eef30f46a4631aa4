"""Windows cut from a region on the device, gathered into batches of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_wsi_heatmap.predict import enough_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.coords import WindowList
    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.loader import LoadedRegion

    Index = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Patches that go through the model together."""

    patches: torch.Tensor
    """(B, 3, kh, kw) uint8 on the device, channels last in memory; B never changes.

    The tail of the last one is zero. The next batch is made in the same memory.
    """
    index: Index
    """(n,) flat indices of the windows, n ≤ B."""


class BatchCutter:
    """Copies each region to the device once and fills batches of a fixed size from it.

    Windows that could not be read are left out. A batch may hold windows of several regions.

    Memory bound: one region and one batch on the device.
    """

    def __init__(
        self, windows: WindowGrid | WindowList, batch_size: int, device: torch.device
    ) -> None:
        self._windows, self._device = windows, device
        self._filled = 0
        self._index: list[Index] = []
        height, width = windows.spec.footprint
        # Channels last, as regions are: then a row of a window is copied at one go.
        shape = (batch_size, height, width, 3)
        with enough_memory(f"batches of {batch_size} x {height} x {width} px"):
            self._patches = torch.zeros(shape, dtype=torch.uint8, device=device)
        # On the CPU NumPy copies them: torch would share each little copy out among its
        # threads, and wait for the one that a reader keeps from its core.
        self._room: Any = self._patches.numpy() if device.type == "cpu" else self._patches

    def cut(self, loaded: LoadedRegion) -> Iterator[Batch]:
        """Take the windows of a region; yield each batch that gets full."""
        index = loaded.readable
        if not len(index):
            return
        pixels: Any = loaded.pixels  # (H, W, 3) uint8
        if self._device.type != "cpu":
            pixels = torch.from_numpy(loaded.pixels).to(self._device)
        corners = self._windows.origins(index) - np.asarray(loaded.region.box[:2])
        yield from self._fill(pixels, corners.tolist(), index)

    def _fill(self, pixels: Any, corners: list[list[int]], index: Index) -> Iterator[Batch]:
        height, width = self._patches.shape[1:3]
        begun = 0
        for taken, (y, x) in enumerate(corners, start=1):
            self._room[self._filled] = pixels[y : y + height, x : x + width]
            self._filled += 1
            if self._filled == len(self._patches):
                self._index.append(index[begun:taken])
                begun = taken
                yield self._close()
        self._index.append(index[begun:])

    def tail(self) -> Iterator[Batch]:
        """Yield the last batch, if it holds any window."""
        if self._filled:
            yield self._close()

    def _close(self) -> Batch:
        # Zeros, so that the tail is the same whatever came before it.
        self._room[self._filled :] = 0
        batch = Batch(self._patches.permute(0, 3, 1, 2), np.concatenate(self._index))
        self._filled, self._index = 0, []
        return batch
