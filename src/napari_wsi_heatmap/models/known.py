"""Weights of architectures that this package knows itself: foundation encoders and VAE2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.models.encoders import encoder_model, load_encoder
from napari_wsi_heatmap.models.encodertable import ENCODERS, encoder_in
from napari_wsi_heatmap.models.hub import HubRepository
from napari_wsi_heatmap.models.tensors import read_state
from napari_wsi_heatmap.models.vae import ARCH, VaeModel, is_vae, load_vae
from napari_wsi_heatmap.models.zoo import zoo_model

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust


def load_known(path: Path, arch: Any, **settings: Any) -> HeatmapModel | None:
    """Make a model of a file of weights, if `arch`, or without one their names, are known here.

    Raises
    ------
    ModelLoadError
        If it is no file of weights, or they are of another architecture.
    """
    if isinstance(arch, str) and arch in ENCODERS:
        return load_encoder(path, arch, **settings)
    if arch == ARCH:
        return load_vae(path, **settings)
    if arch is None:
        state = read_state(path)
        return VaeModel(state, path=path, **settings) if is_vae(state) else None
    return None


def hub_model(spec: str, *, arch: Any = None, trust: Trust = None, **settings: Any) -> HeatmapModel:
    """Make a model of a Hugging Face repository at a pinned revision.

    Parameters
    ----------
    spec : str
        ``hf://owner/name@<40 hex digits>``: a WSInfer zoo model, or the weights of an encoder.
    arch : str, optional
        Name of the encoder, where the repository is not the one of its makers.
    trust : str, sequence of str or bool, optional
        Consent to TorchScript.
    **settings
        Attributes of `HeatmapModel`, checked.
    """
    repository = HubRepository.of(spec)
    if arch is not None or encoder_in(repository.owner, repository.name):
        return encoder_model(spec, arch=arch, **settings)
    return zoo_model(spec, trust=trust, **settings)
