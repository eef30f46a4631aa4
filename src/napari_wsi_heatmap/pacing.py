"""How much is read and computed at a time, so that a run follows who looks elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from napari_wsi_heatmap.blocks import region_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_wsi_heatmap.plan import Plan
    from napari_wsi_heatmap.settings import RunSettings

REGION_S: Final = 1.0
"""Seconds of computing that a region may hold, so that slow models follow who pans."""


def windows_a_region(plans: Sequence[Plan]) -> int:
    """What the models compute in `REGION_S`: a look elsewhere waits for the region at hand."""
    size = max(plan.batch_size for plan in plans)
    return max(size, int(REGION_S / max(seconds_a_window(plans), 1e-6)))


def seconds_a_window(plans: Sequence[Plan]) -> float:
    """Seconds that all models take for one window."""
    return sum(plan.dry.seconds_per_batch / plan.batch_size for plan in plans)


def region_bytes(settings: RunSettings) -> int:
    """What a region may take of the memory: those that readers work on, and two that wait.

    What is read ahead is computed before what somebody begins to look at, so no more wait.
    """
    return settings.memory_bytes // 2 // (settings.reader_threads + 2)


def read_ahead(settings: RunSettings, tile: tuple[int, int]) -> int:
    """Bytes of regions in flight."""
    side = region_side(tile, region_bytes(settings))
    return (settings.reader_threads + 2) * 3 * side**2
