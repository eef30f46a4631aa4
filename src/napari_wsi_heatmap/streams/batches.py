"""Patches gathered into batches, resized and cast by threads beside whoever uses them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
import torch

from napari_wsi_heatmap.devices import choose_devices
from napari_wsi_heatmap.predict import to_unit
from napari_wsi_heatmap.resize import resize_patches
from napari_wsi_heatmap.reused import ReusedArrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.streams.cutting import CutRegion
    from napari_wsi_heatmap.streams.settings import StreamSettings

    Pixels = NDArray[np.uint8]
    Sides = tuple[int, int]


ALONE: Final = SimpleNamespace(replicable=False)
"""Patches are on one device."""


class PatchBatch(NamedTuple):
    """Patches of some windows."""

    x: Any
    """(N, 3, H, W) float32 in 0…1, or what the transform made of it."""
    slides: list[Any]
    """What the slide of each patch is called."""
    windows: Any
    """(N, 2) int64, top-left (y, x), whole level-0 pixels."""


class Gatherer:
    """Fills batches of `size` windows; the last one may be shorter.

    Windows of slides with other pixels have other footprints, and are kept apart until they are
    resized.

    Memory bound: the batch at hand.
    """

    def __init__(self, settings: StreamSettings) -> None:
        self._settings, self._size = settings, settings.batch_size
        self._stored, self._cast = ReusedArrays(), ReusedArrays()
        self._device = choose_devices(settings.reading.device, cast("HeatmapModel", ALONE))[0]

    def batches(self, windows: Iterable[tuple[CutRegion, int]]) -> Iterator[BatchWork]:
        """Batches of windows in their order."""
        batch = self._new()
        for cut, row in windows:
            batch.add(cut, row)
            if len(batch) == self._size:
                yield batch
                batch = self._new()
        if len(batch):
            yield batch

    def _new(self) -> BatchWork:
        return BatchWork(self._settings, self._device, self._stored, self._cast)


class BatchWork:
    """A batch on its way: windows are added, then threads make patches of them."""

    def __init__(
        self,
        settings: StreamSettings,
        device: torch.device,
        stored: ReusedArrays,
        floats: ReusedArrays,
    ) -> None:
        self._settings, self._device = settings, device
        self._stored, self._cast = stored, floats
        self._parts: dict[Sides, tuple[Pixels, list[int]]] = {}
        self._slides: list[Any] = []
        self._windows: list[NDArray[np.int64]] = []
        self.batch: PatchBatch | None = None

    def __len__(self) -> int:
        return len(self._slides)

    def add(self, cut: CutRegion, row: int) -> None:
        """Cut a window and take it in."""
        sides = cut.region.slide.window
        if sides not in self._parts:
            shape = (self._settings.batch_size, *sides, 3)
            self._parts[sides] = self._stored.empty(shape, np.uint8), []
        pixels, places = self._parts[sides]
        cut.cut(row, pixels[len(places)])
        places.append(len(self._slides))
        self._slides.append(cut.region.slide.id)
        self._windows.append(cut.places[row])

    def prepare(self) -> None:
        """Resize and cast."""
        parts, self._parts = self._parts, {}
        if len(parts) == 1:
            ((pixels, places),) = parts.values()
            x = self._patches(pixels[: len(places)])
        else:
            x = self._together(parts)
        self.batch = PatchBatch(x, self._slides, np.array(self._windows, np.int64))

    def compute(self) -> None:
        """Nothing to do."""

    def arrive(self) -> None:
        """Nothing to do."""

    def _together(self, parts: dict[Sides, tuple[Pixels, list[int]]]) -> torch.Tensor:
        x: Any = None
        for pixels, places in parts.values():
            some = self._patches(pixels[: len(places)])
            if x is None:
                x = some.new_empty((len(self), *some.shape[1:]))
            x[places] = some
        return x

    def _patches(self, pixels: Pixels) -> torch.Tensor:
        """(n, kh, kw, 3) uint8 -> (n, 3, H, W) float32 in 0…1, on the device."""
        reading = self._settings.reading
        stored = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self._device)
        assert isinstance(reading.window, tuple)
        sized = resize_patches(stored, reading.window, reading.resize)
        return to_unit(sized, torch.contiguous_format, self._cast)
