"""How much is read and computed at a time, so that a run follows who looks elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from napari_wsi_heatmap.blocks import REGION_SIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_wsi_heatmap.plan import Plan

REGION_S: Final = 1.0
"""Seconds of computing that a region may hold, so that slow models follow who pans."""


def windows_a_region(plans: Sequence[Plan]) -> int:
    """What the models compute in `REGION_S`: a look elsewhere waits for the region at hand."""
    size = max(plan.batch_size for plan in plans)
    return max(size, int(REGION_S / max(seconds_a_window(plans), 1e-6)))


def seconds_a_window(plans: Sequence[Plan]) -> float:
    """Seconds that all models take for one window."""
    return sum(plan.dry.seconds_per_batch / plan.batch_size for plan in plans)


def read_ahead(readers: int) -> int:
    """Bytes of regions: enough to keep all readers busy.

    What is read ahead is computed before what somebody begins to look at, so no more.
    """
    return (readers + 2) * 3 * REGION_SIDE**2
