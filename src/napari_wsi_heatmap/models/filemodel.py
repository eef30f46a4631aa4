"""Models that come from a file: what all of them have in common."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.models.base import HeatmapModel
from napari_wsi_heatmap.models.callables import ModuleMode
from napari_wsi_heatmap.models.identity import module_sha256

if TYPE_CHECKING:
    from pathlib import Path

    import torch

RECORDED = ("output", "features", "activation", "tta", "names", "output_stride")
"""Settings that a record keeps; window, pixel size and batch size stand among those of the run."""


@dataclass(frozen=True)
class Source:
    """Where a model came from."""

    path: Path
    sha256: str | None = None
    """Of the file, where the file as a whole is what runs; else the layers are hashed."""


class FileModel(HeatmapModel):
    """Layers from a file.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    source : Source
    **settings
        Attributes of `HeatmapModel`, checked.
    """

    def __init__(self, module: torch.nn.Module, source: Source, **settings: Any) -> None:
        self._module, self.source = module, source
        self.name = source.path.name.partition(".")[0] or "model"
        self._chosen: dict[str, Any] = {}
        self._spec: dict[str, Any] | None = None
        self._own_transform: Any = None
        self._before: ModuleMode | None = None
        self.settle(**settings)

    def settle(self, **settings: Any) -> None:
        """Take over settings, and remember them: a record keeps them."""
        super().settle(**settings)
        self._chosen = self._chosen | settings

    def made_from(self, spec: object, transform: Any = None, **keywords: Any) -> None:
        """Say that ``load_model(spec, **keywords)`` makes it again, with that transform."""
        self._spec = {"path": _lasting(spec), **keywords}
        self._own_transform = transform

    @property
    def sha256(self) -> str:
        """Hex digest of the file that is code, else of layers and weights; and what is added."""
        core = self.source.sha256 or module_sha256(self._module)
        return self._digest(hashlib.sha256(f"{type(self).__name__} {core}".encode()).hexdigest())

    @property
    def module(self) -> torch.nn.Module:
        """The layers."""
        return self._module

    def forward(self, batch: torch.Tensor) -> Any:
        """Run the layers."""
        return self._module(batch)

    def to(self, device: torch.device) -> None:
        """Move the layers to `device`; `restore` brings them back."""
        self._before = self._before or ModuleMode.borrow(self._module)
        self._module.to(device)

    def restore(self) -> None:
        """Free the device's memory: the layers go back to where they were."""
        if self._before is not None:
            self._before.restore()
            self._before = None

    def spec(self) -> dict[str, Any] | None:
        """What `load_again` makes the model from, as JSON; None if a part came from Python."""
        if self._spec is None or self.transform is not self._own_transform:
            return None
        kept = {name: self._chosen[name] for name in RECORDED if name in self._chosen}
        # Lists for tuples, as they come back from JSON.
        return self._spec | {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}


def _lasting(spec: object) -> str:
    """A path that holds wherever a run is continued from; an address as it is."""
    text = os.fspath(spec) if isinstance(spec, os.PathLike) else str(spec)
    return text if "://" in text else os.path.abspath(text)
