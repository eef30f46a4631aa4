"""The models that need no weights, by name."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from napari_wsi_heatmap.models.base import HeatmapModel
from napari_wsi_heatmap.models.focus import Sharpness
from napari_wsi_heatmap.models.nuclei import NucleiDensity
from napari_wsi_heatmap.models.stains import StainDensity
from napari_wsi_heatmap.models.tissue import TissueFraction

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

NETS: Final[dict[str, Callable[[], Any]]] = {
    "hematoxylin": partial(StainDensity, "hematoxylin"),
    "eosin": partial(StainDensity, "eosin"),
    "dab": partial(StainDensity, "dab"),
    "nuclei": NucleiDensity,
    "focus": Sharpness,
    "tissue": TissueFraction,
}
"""What makes each; `napari_wsi_heatmap.models.BUILTIN` describes them."""

BATCH_SIZE: Final = 32
CACHE_BYTES: Final = 4 << 20
"""Of a core, roughly."""


@final
class BuiltinModel(HeatmapModel):
    """A model whose formula stands in this package.

    Parameters
    ----------
    name : str
        A key of `NETS`.
    **settings
        Attributes of `HeatmapModel`, checked; they win over the model's own.
    """

    batch_size = BATCH_SIZE
    concurrent = any_layout = replicable = True

    def __init__(self, name: str, **settings: Any) -> None:
        self.name = name
        net = NETS[name]()
        self.window, self.mpp, self.names = net.window, net.mpp, net.names
        self.unit, self.limits = net.unit, net.limits
        self.settle(**settings)

    def settle(self, **settings: Any) -> None:
        """Take over settings; a formula in µm follows the pixel size."""
        super().settle(**settings)
        self.net = NETS[self.name]().eval()
        self.net.mpp = self.mpp

    @property
    def sha256(self) -> str:
        """Hex digest of name, the formula's version and parameters."""
        core = f"{self.name} {self.net.version} {self.net.extra_repr()}"
        return self._digest(hashlib.sha256(core.encode()).hexdigest())

    def few(self, nbytes: int) -> int | None:
        """As many as stay in a core's cache, with what is made of them on the way."""
        return max(1, CACHE_BYTES // nbytes)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Apply the formula; (N, 1)."""
        values: torch.Tensor = self.net(batch)
        return values
