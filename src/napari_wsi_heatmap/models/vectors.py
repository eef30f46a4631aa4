"""Any model as an encoder: what it returns for a window is the window's feature vector.

As with the foundation encoders, the map shows the vector's Euclidean norm.
"""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any, Final, final

from napari_wsi_heatmap.models.again import AS_VECTORS, spec_of
from napari_wsi_heatmap.models.base import HeatmapModel
from napari_wsi_heatmap.models.encoders import NORM, NORM_NAME, NORM_UNIT, VECTORS
from napari_wsi_heatmap.models.outputs import activate, as_features, select_output, split_output

if TYPE_CHECKING:
    import torch

TAKEN: Final = ("name", "window", "mpp", "transform", "batch_size", "concurrent", "any_layout")
"""What is asked of a model, and holds for the encoder made of it too."""


def as_encoder(model: HeatmapModel) -> HeatmapModel:
    """Return the model, or where it names no features an encoder of its outputs (N, D)."""
    return model if model.features is not None else VectorModel(model)


@final
class VectorModel(HeatmapModel):
    """A model whose outputs (N, D) are taken for feature vectors.

    Parameters
    ----------
    model : HeatmapModel
    """

    output = NORM
    features = VECTORS
    unit = NORM_UNIT

    def __init__(self, model: HeatmapModel) -> None:
        self._model = model
        self.names = (NORM_NAME,)
        for name in TAKEN:
            setattr(self, name, getattr(model, name))

    def __copy__(self) -> VectorModel:
        # The model too: each copy gives back itself what it has borrowed.
        twin = object.__new__(VectorModel)
        vars(twin).update(vars(self) | {"_model": copy.copy(self._model)})
        return twin

    @property
    def sha256(self) -> str:
        """Hex digest of the model's own, and of what is made of it."""
        core = f"vectors of {self._model.output!r} {self._model.sha256}"
        return hashlib.sha256(core.encode()).hexdigest()

    def spec(self) -> dict[str, Any] | None:
        """What `load_again` makes it from; None if the model came from Python."""
        spec = spec_of(self._model)
        named = {"path": spec} if isinstance(spec, str) else spec
        return named and {**named, AS_VECTORS: True}

    @property
    def module(self) -> torch.nn.Module | None:
        """The model's layers."""
        return self._model.module

    def forward(self, batch: torch.Tensor) -> dict[str, Any]:
        """Feature vectors (N, D) and their norms (N,)."""
        raw = self._model.forward(batch)
        chosen = select_output(raw, split_output(raw, self._model.output)[0])
        vectors = activate(as_features(chosen, len(batch)), self._model.activation)
        return {NORM: vectors.norm(dim=1), VECTORS: vectors}

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self._model.to(device)

    def restore(self) -> None:
        """Put the model back."""
        self._model.restore()
