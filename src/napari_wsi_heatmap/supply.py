"""From regions to work: what each device is given, in which order, by how many threads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from napari_wsi_heatmap.busy import Busy
from napari_wsi_heatmap.cut import Batch, BatchCutter, Copier
from napari_wsi_heatmap.workers import Plant, torch_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Piece
    from napari_wsi_heatmap.loader import LoadedRegion, Loader
    from napari_wsi_heatmap.predict import Computed, Predictor, Seen
    from napari_wsi_heatmap.share import Share
    from napari_wsi_heatmap.timings import Timings

FEWEST_WORKERS: Final = 2
"""One prepares a batch while another's is in the model."""
MOST_WORKERS: Final = 8
"""Each holds a batch."""


@dataclass
class BatchWork:
    """A batch on its way through a model; its pixels are let go as soon as they were seen."""

    share: Share
    predictor: Predictor
    batch: Batch | None
    busy: Busy
    timings: Timings
    _index: NDArray[np.int64] = field(init=False)
    _seen: Seen | None = None
    _computed: Computed | None = None

    def __post_init__(self) -> None:
        assert self.batch is not None
        self._index = self.batch.index

    @property
    def windows(self) -> int:
        """Number of windows."""
        return len(self._index)

    def prepare(self) -> None:
        """Resize and cast."""
        assert self.batch is not None
        with self.timings.spent("copying", self.batch.patches.nbytes):
            self._seen = self.predictor.see(self.batch.patches)
        self.batch = None

    def compute(self) -> None:
        """Run the model; on a GPU, have it begun."""
        assert self._seen is not None
        with self.busy:
            shape = self.share.plan.row_shape
            self._computed = self.predictor.compute(self._seen, self.windows, shape)
        self._seen = None

    def arrive(self) -> None:
        """Wait for the values."""
        assert self._computed is not None
        with self.busy:
            self._computed.numpy()

    def pieces(self) -> Iterator[Piece]:
        """Put them on the map."""
        assert self._computed is not None
        yield self.share.place(self._index, self._computed)


@dataclass
class UnreadableWork:
    """Windows of a region that cannot be read."""

    shares: Sequence[Share]
    loaded: LoadedRegion

    @property
    def windows(self) -> int:
        """Number of windows."""
        return len(self.loaded.failed)

    def prepare(self) -> None:
        """Nothing to do."""

    def compute(self) -> None:
        """Nothing to do."""

    def arrive(self) -> None:
        """Nothing to do."""

    def pieces(self) -> Iterator[Piece]:
        """Note them as failed."""
        for share in self.shares:
            piece = share.fail(self.loaded.failed)
            if piece is not None:
                yield piece


def plants_of(shares: Sequence[Share], loader: Loader, timings: Timings) -> Iterator[Plant]:
    """Ways of the loader's regions to every device of a run, which share them."""
    devices = shared_devices(shares)
    for number, device in enumerate(devices):
        predictors = [share.plan.predictor for share in shares]
        if number:
            predictors = [predictor.on(device) for predictor in predictors]
        work = _Work(shares, predictors, loader, timings)
        yield _plant(iter(work), shares, device, len(devices))


def shared_devices(shares: Sequence[Share]) -> tuple[torch.device, ...]:
    """Devices that all models of a run can be on."""
    return min((share.plan.devices for share in shares), key=len)


def _plant(
    work: Iterator[BatchWork | UnreadableWork],
    shares: Sequence[Share],
    device: torch.device,
    devices: int,
) -> Plant:
    cores = max(1, torch_threads() // devices)
    side_by_side = device.type == "cpu" and all(s.plan.model.concurrent for s in shares)
    if side_by_side:
        return Plant(work, min(cores, MOST_WORKERS), False, 1, device)
    workers = min(max(cores, FEWEST_WORKERS), MOST_WORKERS) if device.type == "cpu" else 2
    return Plant(work, workers, True, cores, device)


class _Work:
    """Cuts every region for every model; each window goes once through each."""

    def __init__(
        self,
        shares: Sequence[Share],
        predictors: Sequence[Predictor],
        loader: Loader,
        timings: Timings,
    ) -> None:
        self._shares, self._loader, self._timings = shares, loader, timings
        self._predictors = predictors
        self._device = predictors[0].device
        self._busy = Busy(timings)

    def __iter__(self) -> Iterator[BatchWork | UnreadableWork]:
        copier, cutters = Copier(self._device), [self._cutter(s) for s in self._shares]
        for loaded in self._regions():
            if loaded.failed:
                yield UnreadableWork(self._shares, loaded)
            with self._timings.spent("copying"):
                pixels = copier.copy(loaded.pixels)
            for number, share in enumerate(self._shares):
                index = share.wanted(loaded.readable)
                cut = cutters[number].cut(loaded, pixels, index)
                for batch in self._timings.each("copying", cut):
                    yield self._work(number, batch)
        for number, cutter in enumerate(cutters):
            for batch in cutter.tail():
                yield self._work(number, batch)

    def _cutter(self, share: Share) -> BatchCutter:
        return BatchCutter(share.plan.grid, share.plan.batch_size, self._device)

    def _work(self, number: int, batch: Batch) -> BatchWork:
        share, predictor = self._shares[number], self._predictors[number]
        return BatchWork(share, predictor, batch, self._busy, self._timings)

    def _regions(self) -> Iterator[LoadedRegion]:
        """Regions; what the device waits for them, and only that, counts as waiting."""
        regions, idle_s = iter(self._loader), self._busy.idle_s
        for loaded in regions:
            self._timings.add("waiting", self._busy.idle_s - idle_s)
            yield loaded
            idle_s = self._busy.idle_s
