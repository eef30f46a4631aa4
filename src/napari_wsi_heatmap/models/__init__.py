"""Models: what is computed.

One file is one kind of model; a kind is one row of `KINDS`, imported when it is used, so that
this module costs no import of torch.
"""

from __future__ import annotations

import difflib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.encodertable import ENCODERS
from napari_wsi_heatmap.models.settings import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust

__all__ = ["BUILTIN", "KINDS", "Kind", "builtin_names", "load_model"]

BUILTIN = {
    "hematoxylin": "haematoxylin: mean optical density of the nuclear stain",
    "eosin": "eosin: mean optical density of the counterstain of H&E",
    "dab": "DAB: mean optical density of the brown stain of IHC",
    "nuclei": "nuclei per mm², counted as blobs of haematoxylin",
    "focus": "sharpness: low where the slide is out of focus",
    "tissue": "fraction of the window that is tissue",
}
"""Name and description of the models that need no weights."""


@dataclass(frozen=True)
class Kind:
    """One kind of model: which specs it takes, and what makes a model of them."""

    name: str
    matches: Callable[[Any], bool]
    module: str
    maker: str
    """Name in `module` of ``maker(spec, **settings) -> HeatmapModel``."""
    takes: tuple[str, ...] = ()
    """Which of trust and arch the maker wants to have as well."""

    def make(self, spec: Any, settings: dict[str, Any]) -> HeatmapModel:
        """Import the kind and make a model of `spec`."""
        maker = getattr(importlib.import_module(self.module), self.maker)
        return cast("HeatmapModel", maker(spec, **settings))


def _is_builtin(spec: Any) -> bool:
    return isinstance(spec, str) and spec in BUILTIN


def _is_encoder(spec: Any) -> bool:
    return isinstance(spec, str) and spec in ENCODERS


def _is_hub(spec: Any) -> bool:
    return isinstance(spec, str) and spec.startswith("hf://")


def _is_zoo(spec: Any) -> bool:
    if not isinstance(spec, (str, os.PathLike)):
        return False
    return os.path.isfile(os.path.join(os.path.expanduser(os.fspath(spec)), "config.json"))


def _is_ready(spec: Any) -> bool:
    # Only what can be called is worth importing torch for.
    base = "napari_wsi_heatmap.models.base"
    return callable(spec) and isinstance(spec, importlib.import_module(base).HeatmapModel)


def _is_file(spec: Any) -> bool:
    if isinstance(spec, os.PathLike):
        return True
    named = isinstance(spec, str) and (Path(spec).suffix or os.sep in spec or "/" in spec)
    return bool(named) or (isinstance(spec, str) and spec != "" and os.path.exists(spec))


KINDS = (
    Kind("builtin", _is_builtin, "napari_wsi_heatmap.models.builtin", "BuiltinModel"),
    Kind("encoder", _is_encoder, "napari_wsi_heatmap.models.encoders", "encoder_model"),
    Kind("hub", _is_hub, "napari_wsi_heatmap.models.known", "hub_model", ("trust", "arch")),
    Kind("zoo", _is_zoo, "napari_wsi_heatmap.models.zoo", "zoo_model", ("trust",)),
    Kind("ready", _is_ready, "napari_wsi_heatmap.models.base", "adapted"),
    Kind("callable", callable, "napari_wsi_heatmap.models.callables", "CallableModel"),
    Kind("file", _is_file, "napari_wsi_heatmap.models.files", "load_file", ("trust", "arch")),
)
"""The first whose `matches` says yes makes the model."""


def builtin_names() -> tuple[str, ...]:
    """Names of the builtin models; costs no import of torch."""
    return tuple(BUILTIN)


def load_model(
    spec: Any,
    *,
    window: int | tuple[int, int] | None = None,
    mpp: float | None = None,
    transform: Callable[[Any], Any] | None = None,
    output: int | str | tuple[int | str, int | str] | None = None,
    features: int | str | None = None,
    activation: str | None = None,
    tta: str | None = None,
    names: Sequence[str] | str | None = None,
    trust: Trust = None,
    arch: Any = None,
    weights: Any = None,
    output_stride: float | None = None,
    batch_size: int | None = None,
) -> HeatmapModel:
    """Make a model that can be run over a slide.

    Parameters
    ----------
    spec : str, path, nn.Module, callable or HeatmapModel
        Name of a builtin model or of a foundation encoder (`models.encodertable`); or a model
        file: safetensors, state dict, TorchScript, .pt2; or a folder of the WSInfer zoo; or
        ``hf://owner/name@<40 hex digits>``, a repository of either at a pinned revision; or
        anything callable that maps (N, 3, H, W) float32 RGB in 0…1 to (N,), (N, C), (N, C, h, w),
        or a tuple or dict of these; or a model already made, which is copied if it is to be
        changed.
    window : int or (int, int), optional
        (height, width) in pixels that the model sees; 224 unless it states its own.
    mpp : float, optional
        µm per pixel at which it wants to see them; without one the level read decides.
    transform : callable, optional
        (N, 3, H, W) float32 in 0…1 -> what the model takes.
    output : int, str or (int or str, int or str), optional
        Index or key of the output that is drawn, where the model returns several; where it returns
        one of several classes, name or index of the one that is drawn; or both, (key, class).
    features : int or str, optional
        Index or key of the output that holds a feature vector (N, D) of each window, to be kept
        beside the values.
    activation : {"softmax", "sigmoid", "none"}, optional
        Applied to what the model returns; "none" where a model's files state one.
    tta : {"flips", "dihedral", "none"}, optional
        Average 4 or 8 views of each window, mirrored or also turned, after the activation; how
        much they differ becomes further channels, see `models.tta.averaged`.
    names : sequence of str, optional
        One name per output.
    trust : str, sequence of str or bool, optional
        Consent to formats that are code, TorchScript and .pt2: the file's sha256, or True; it is
        remembered by the sha256. Nothing handed over in Python needs it.
    arch : str or nn.Module, optional
        Architecture that a file of weights belongs to: a name of timm, or the layers.
    weights : path, optional
        File of weights for the nn.Module in `spec`, which gets them, or for the architecture of
        timm or the encoder that `spec` names; of an encoder also ``hf://owner/name@<40 hex>``.
    output_stride : float, optional
        Pixels of the window per cell of a dense output.
    batch_size : int, optional
        Windows in a batch; measured at the dry run unless given.

    Returns
    -------
    HeatmapModel

    Raises
    ------
    ModelLoadError
        If there is no such model or a setting cannot be.
    UntrustedModelError
        If it is a file that is code, and there is no consent.
    """
    if weights is not None:
        spec, arch = _weighted(spec, arch, weights)
    settings = checked(
        window=window, mpp=mpp, transform=transform, output=output, features=features,
        activation=activation, tta=tta, names=names, output_stride=output_stride,
        batch_size=batch_size,
    )  # fmt: skip
    for kind in KINDS:
        if kind.matches(spec):
            _check_takes(kind, spec, arch)
            extra = {"trust": trust, "arch": arch}
            return kind.make(spec, settings | {name: extra[name] for name in kind.takes})
    raise _refusal(spec)


def _check_takes(kind: Kind, spec: Any, arch: Any) -> None:
    if arch is not None and "arch" not in kind.takes:
        what = f"arch={arch!r} belongs to a file of weights"
        raise ModelLoadError(what, spec, "give the file, or leave arch= away")


def _weighted(spec: Any, arch: Any, weights: Any) -> tuple[Any, Any]:
    """What weights= means: the file for a named architecture, or layers that get the weights."""
    if arch is not None:
        raise ModelLoadError("both arch= and weights= are given", do="give one of them")
    if isinstance(spec, str) and spec not in BUILTIN:
        return weights if _is_hub(weights) else Path(os.fspath(weights)), spec
    statedict = importlib.import_module("napari_wsi_heatmap.models.statedict")
    return statedict.with_weights(spec, weights), None


def _refusal(spec: Any) -> ModelLoadError:
    if not isinstance(spec, (str, os.PathLike)):
        return ModelLoadError(
            f"a {type(spec).__name__} is no model",
            do="hand over a builtin name, an nn.Module or a callable",
        )
    text = os.fspath(spec)
    close = difflib.get_close_matches(text.lower(), [*BUILTIN, *ENCODERS], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return ModelLoadError(
        f"no model {text!r}", do=f"{hint}The builtin ones are {', '.join(BUILTIN)}"
    )
