"""What computes: the names of devices, and those that this machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_wsi_heatmap.errors import ModelError

if TYPE_CHECKING:
    from napari_wsi_heatmap.models.base import HeatmapModel


def choose_devices(name: str, model: HeatmapModel) -> tuple[torch.device, ...]:
    """Find the devices of a name such as ``auto``, ``cpu``, ``cuda:0`` or ``cuda:0,cuda:1``.

    ``auto`` and ``cuda`` are all GPUs of this machine. A model that cannot be copied, such as a
    plain function, has the first one alone.

    Raises
    ------
    ModelError
        If there is no such device here, or they are of several kinds.
    """
    name = _best_device() if name == "auto" else name
    number = torch.cuda.device_count() if name == "cuda" else 0
    names = [f"cuda:{i}" for i in range(number)] or name.split(",")
    devices = tuple(_device(name.strip()) for name in names)
    if len({device.type for device in devices}) > 1:
        raise ModelError(
            f"{name!r} are devices of several kinds", do="choose some that compute alike"
        )
    return devices if model.replicable else devices[:1]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no values
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"no device {name!r} here", do=f"choose auto, cpu{_others()}") from error
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _others() -> str:
    return "".join(f", cuda:{i}" for i in range(torch.cuda.device_count()))
