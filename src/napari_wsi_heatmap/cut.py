"""Windows cut from a region on the device: a strided view, gathered into batches of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """(B, 3, kh, kw) uint8 on the device; B never changes, the tail of the last one is zero."""
    index: Index
    """(n,) flat indices of the windows, n ≤ B."""


def window_view(region: torch.Tensor, footprint: tuple[int, int]) -> torch.Tensor:
    """Every window of a region as a view, (H − kh + 1, W − kw + 1, 3, kh, kw), without a copy.

    Parameters
    ----------
    region : (H, W, 3) tensor
    footprint : (int, int)
        (kh, kw) of a window.
    """
    return region.unfold(0, footprint[0], 1).unfold(1, footprint[1], 1)


class BatchCutter:
    """Copies each region to the device once and fills batches of a fixed size from it.

    Windows that could not be read are left out. A batch may hold windows of several regions.

    Memory bound: one region and one batch on the device.
    """

    def __init__(
        self, windows: WindowGrid | WindowList, batch_size: int, device: torch.device
    ) -> None:
        self._windows = windows
        self._shape = (batch_size, 3, *windows.spec.footprint)
        self._device = device
        self._begin()

    def _begin(self) -> None:
        self._filled = 0
        self._index: list[Index] = []
        # Zeros, so that the tail of the last batch is the same whatever came before it.
        with enough_memory(f"batches of {self._shape[0]} x {self._shape[2]} x {self._shape[3]} px"):
            self._patches = torch.zeros(self._shape, dtype=torch.uint8, device=self._device)

    def cut(self, loaded: LoadedRegion) -> Iterator[Batch]:
        """Take the windows of a region; yield each batch that gets full."""
        index = loaded.readable
        if not len(index):
            return
        pixels = torch.from_numpy(loaded.pixels).to(self._device)  # (H, W, 3) uint8
        view = window_view(pixels, self._windows.spec.footprint)
        corners = self._windows.origins(index) - np.asarray(loaded.region.box[:2])
        yield from self._fill(view, torch.from_numpy(corners).to(self._device), index)

    def _fill(self, view: torch.Tensor, corners: torch.Tensor, index: Index) -> Iterator[Batch]:
        taken = 0
        while taken < len(index):
            n = min(len(index) - taken, self._shape[0] - self._filled)
            y, x = corners[taken : taken + n].unbind(1)
            self._patches[self._filled : self._filled + n] = view[y, x]  # (n, 3, kh, kw)
            self._index.append(index[taken : taken + n])
            self._filled, taken = self._filled + n, taken + n
            if self._filled == self._shape[0]:
                yield self._close()

    def tail(self) -> Iterator[Batch]:
        """Yield the last batch, if it holds any window."""
        if self._filled:
            yield self._close()

    def _close(self) -> Batch:
        batch = Batch(self._patches, np.concatenate(self._index))
        self._begin()
        return batch
