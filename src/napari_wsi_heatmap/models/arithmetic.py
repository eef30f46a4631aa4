"""How a device computes: what is held fixed while models run, and what a record says of it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.models.base import HeatmapModel


class _Fixed:
    """cuDNN's search for the fastest algorithm, off while anybody runs a model.

    It would choose by the clock, and the algorithm decides the last bits. The switch is one for
    the whole process: the last to end puts back what was there before the first began.
    """

    lock = threading.Lock()
    users = 0
    before = False


@contextmanager
def fixed_algorithms(device: torch.device) -> Iterator[None]:
    """Run models inside this, so that the clock does not choose how they compute."""
    if device.type != "cuda":
        yield
        return
    with _Fixed.lock:
        if not _Fixed.users:
            _Fixed.before = torch.backends.cudnn.benchmark
        _Fixed.users += 1
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        with _Fixed.lock:
            _Fixed.users -= 1
            if not _Fixed.users:
                torch.backends.cudnn.benchmark = _Fixed.before


def best_layout(model: HeatmapModel, device: torch.device) -> torch.memory_format:
    """How patches should lie in memory: channels last for convolutions.

    Those of cuDNN and oneDNN follow the layout of what comes in, and are up to twice as fast; the
    model's weights are left as they are. Also where a model takes any layout: so patches are cut,
    and need not be sorted.
    """
    if model.any_layout:
        return torch.channels_last
    module = model.module
    convolves = module is not None and any(
        isinstance(part, torch.nn.Conv2d) for part in module.modules()
    )
    suits = device.type in ("cpu", "cuda")
    return torch.channels_last if suits and convolves else torch.contiguous_format


def describe_arithmetic(device: torch.device) -> dict[str, Any]:
    """What decides the last bits on a device, as plain values."""
    told = {"device": device.type, "device_name": "", "cudnn_benchmark": False}
    if device.type == "cuda":
        told["device_name"] = torch.cuda.get_device_name(device)
        told["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return told | {
        "float32_of_matmul": torch.backends.cuda.matmul.fp32_precision,
        "float32_of_convolutions": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }
