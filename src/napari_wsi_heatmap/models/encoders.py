"""Foundation encoders: a feature vector of each window.

An encoder says nothing that could be drawn by itself, and what could be made of all its vectors,
such as their principal components, is not known while a run goes on. So the map that grows shows
their Euclidean length, and says so: "L2 norm". Where it changes, the encoder sees something else.
The vectors are the features, kept beside it: see `napari_wsi_heatmap.embedding`. With
``output="features"`` each of them is a channel of the map instead.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import torch

from napari_wsi_heatmap.errors import ModelLoadError, ModelOutputError
from napari_wsi_heatmap.models.encodertable import ENCODERS, Encoder, encoder_in
from napari_wsi_heatmap.models.filemodel import FileModel, Source
from napari_wsi_heatmap.models.hub import HubRepository, is_hub
from napari_wsi_heatmap.models.normalize import Normalize
from napari_wsi_heatmap.models.statedict import imported_timm
from napari_wsi_heatmap.models.tensors import read_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Tensor = torch.Tensor

NORM: Final = "norm"
NORM_NAME, NORM_UNIT = "L2 norm", "L2 norm of the features"
VECTORS: Final = "features"
LAYERS: Final = {"SwiGLUPacked": "timm.layers", "SiLU": "torch.nn"}
"""Layers that the table names, and where they come from."""


def encoder_model(spec: str, *, arch: str | None = None, **settings: Any) -> EncoderModel:
    """Make an encoder of its name, or of a Hugging Face repository at a pinned revision.

    Parameters
    ----------
    spec : str
        A key of `ENCODERS`: the weights are those in the user's cache; or
        ``hf://owner/name@<40 hex digits>``, which is downloaded if it is not there.
    arch : str, optional
        Key of `ENCODERS`, where the repository is not the table's.
    **settings
        Attributes of `HeatmapModel`, checked.

    Raises
    ------
    ModelLoadError
        If there are no weights, or they are not those of the encoder.
    """
    if not is_hub(spec):
        return load_encoder(_in_cache(ENCODERS[spec]), spec, **settings)
    repository = HubRepository.of(spec)
    name = arch or encoder_in(repository.owner, repository.name)
    if name not in ENCODERS:
        raise ModelLoadError(f"no encoder {name!r}", spec, f"there are {', '.join(ENCODERS)}")
    return load_encoder(repository.fetched(ENCODERS[name].file), name, **settings)


def load_encoder(path: Path, name: str, **settings: Any) -> EncoderModel:
    """Make an encoder with weights of a file; see `encoder_model`."""
    encoder = ENCODERS[name]
    try:
        net = build(encoder, read_state(path))
    except ModelLoadError as error:
        raise error if error.where else ModelLoadError(error.what, path, error.do) from error
    return EncoderModel(name, encoder, net, path=path, **settings)


def _in_cache(encoder: Encoder) -> Path:
    owner, name = encoder.repository
    repository = HubRepository.in_cache(owner, name)
    path = repository and repository.cached(encoder.file)
    if path:
        return path
    raise ModelLoadError(
        f"the weights of {encoder.title} are not in the cache",
        do=f"give their file as weights=, or weights='hf://{owner}/{name}@<commit>' to download",
    )


@final
class EncoderModel(FileModel):
    """A foundation encoder.

    Parameters
    ----------
    name : str
    encoder : Encoder
        What it sees and how its output becomes a vector.
    net : nn.Module
        With its weights.
    path : Path, optional
        Where they came from.
    **settings
        Attributes of `HeatmapModel`, checked; they win over the table's.
    """

    output = NORM
    features = VECTORS
    unit = NORM_UNIT

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        net: torch.nn.Module,
        *,
        path: Path | None = None,
        **settings: Any,
    ) -> None:
        self.encoder, self._hash = encoder, ""
        self.names = (NORM_NAME,)
        transform = Normalize(*encoder.statistics)
        stated = {"window": (encoder.size,) * 2, "mpp": encoder.mpp, "transform": transform}
        super().__init__(net.eval(), Source(path or Path(name)), **(stated | settings))
        self.name = name
        if path is not None:
            self.made_from(path, transform, arch=name)

    def settle(self, **settings: Any) -> None:
        """Take over settings; other outputs than the norm have other names and no unit."""
        output = settings.get("output", self.output)
        if output != self.output:
            self.names, self.unit = None, ""
        if output == VECTORS != self.output:
            self.names = tuple(f"latent_{d}" for d in range(self.encoder.dim))
        self._hash = ""
        super().settle(**settings)

    @property
    def sha256(self) -> str:
        """Hex digest of layers, weights and how vectors are made; taken once, as it takes time."""
        if not self._hash:
            core = f"{self.encoder.pool} {self.encoder.prefix} {super().sha256}"
            self._hash = hashlib.sha256(core.encode()).hexdigest()
        return self._hash

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Feature vectors (N, D) and their norms (N,)."""
        vectors = POOLS[self.encoder.pool](self.module(batch), self.encoder.prefix).float()
        if vectors.shape[1:] != (self.encoder.dim,):
            raise ModelOutputError(
                f"the encoder gave {tuple(vectors.shape)}, not (N, {self.encoder.dim})",
                self.name,
                "give the weights that belong to it",
            )
        return {NORM: vectors.norm(dim=1), VECTORS: vectors}


def _vector(output: Any, prefix: int) -> Tensor:
    return output


def _mean(output: Any, prefix: int) -> Tensor:
    """(N, D, h, w), or a list whose last is that -> (N, D)."""
    last: Tensor = output if isinstance(output, Tensor) else output[-1]
    return last.mean((2, 3))


def _class(output: Any, prefix: int) -> Tensor:
    return output[:, 0]


def _class_and_mean(output: Any, prefix: int) -> Tensor:
    """(N, tokens, D) -> (N, 2 D)."""
    return torch.cat([output[:, 0], output[:, prefix:].mean(1)], 1)


POOLS: Final[dict[str, Callable[[Any, int], Tensor]]] = {
    "vector": _vector,
    "mean": _mean,
    "class": _class,
    "class+mean": _class_and_mean,
}


def build(encoder: Encoder, state: Mapping[str, Tensor]) -> torch.nn.Module:
    """Build the network of an encoder and fill it with weights, all of them and no others.

    Raises
    ------
    ModelLoadError
        If timm is not there, or the weights are not those of the encoder.

    Notes
    -----
    Memory bound: the weights once; the network is built without any and takes these over.
    """
    net = _empty(encoder)
    wanted = net.state_dict().keys()
    state = {k: v.float() for k, v in _without(state, encoder.unused).items()}
    if state.keys() != wanted:
        state = _in_timms_names(state, net)
    try:
        net.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        lines = " ".join(line.strip() for line in str(error).splitlines()[1:])
        raise ModelLoadError(
            f"the weights are not those of {encoder.title}: {lines[:200]}",
            do=f"give those of {'/'.join(encoder.repository)}",
        ) from error
    return net.requires_grad_(requires_grad=False).eval()


def _empty(encoder: Encoder) -> torch.nn.Module:
    timm = imported_timm(encoder.title)
    options = {key: _layer(value) for key, value in encoder.options.items()}
    with torch.device("meta"):
        net: torch.nn.Module = timm.create_model(encoder.arch, pretrained=False, **options)
    return net


def _layer(value: Any) -> Any:
    if not isinstance(value, str) or value not in LAYERS:
        return value
    return getattr(importlib.import_module(LAYERS[value]), value)


def _without(state: Mapping[str, Tensor], unused: tuple[str, ...]) -> dict[str, Tensor]:
    """Leave out what is not used: by the table, and what stands beside the network proper."""
    inner = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    return {k: v for k, v in (inner or state).items() if not k.startswith(unused)}


def _in_timms_names(state: dict[str, Tensor], net: torch.nn.Module) -> dict[str, Tensor]:
    """Weights as other programs name them, in timm's names, as timm itself converts them."""
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    if not isinstance(net, VisionTransformer):
        return state
    try:
        converted: dict[str, Tensor] = checkpoint_filter_fn(state, net)
    except (KeyError, RuntimeError, ValueError, AttributeError):
        return state  # strict loading says what is wrong with them
    return converted
