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
from napari_wsi_heatmap.models.settings import checked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_wsi_heatmap.models.base import HeatmapModel

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

    def make(self, spec: Any, settings: dict[str, Any]) -> HeatmapModel:
        """Import the kind and make a model of `spec`."""
        maker = getattr(importlib.import_module(self.module), self.maker)
        return cast("HeatmapModel", maker(spec, **settings))


def _is_builtin(spec: Any) -> bool:
    return isinstance(spec, str) and spec in BUILTIN


def _is_ready(spec: Any) -> bool:
    # Only what can be called is worth importing torch for.
    base = "napari_wsi_heatmap.models.base"
    return callable(spec) and isinstance(spec, importlib.import_module(base).HeatmapModel)


KINDS = (
    Kind("builtin", _is_builtin, "napari_wsi_heatmap.models.builtin", "BuiltinModel"),
    Kind("ready", _is_ready, "napari_wsi_heatmap.models.base", "adapted"),
    Kind("callable", callable, "napari_wsi_heatmap.models.callables", "CallableModel"),
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
    output: int | str | None = None,
    features: int | str | None = None,
    activation: str | None = None,
    names: Sequence[str] | str | None = None,
    trust: str | bool | None = None,
    arch: Any = None,
    weights: Any = None,
    output_stride: float | None = None,
    batch_size: int | None = None,
) -> HeatmapModel:
    """Make a model that can be run over a slide.

    Parameters
    ----------
    spec : str, nn.Module, callable or HeatmapModel
        Name of a builtin model; or anything callable that maps (N, 3, H, W) float32 RGB in 0…1
        to (N,), (N, C), (N, C, h, w), or a tuple or dict of these; or a model already made,
        which is copied if it is to be changed.
    window : int or (int, int), optional
        (height, width) in pixels that the model sees; 224 unless it states its own.
    mpp : float, optional
        µm per pixel at which it wants to see them; without one the level read decides.
    transform : callable, optional
        (N, 3, H, W) float32 in 0…1 -> what the model takes.
    output : int or str, optional
        Index or key of the output that is drawn, where the model returns several.
    features : int or str, optional
        Index or key of the output that holds a feature vector (N, D) of each window, to be kept
        beside the values.
    activation : {"softmax", "sigmoid"}, optional
        Applied to what the model returns.
    names : sequence of str, optional
        One name per output.
    trust : str or bool, optional
        Consent to formats that are code; nothing handed over in Python needs it.
    arch, weights : optional
        Belong to files of weights, which this version does not load.
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
    """
    if arch is not None or weights is not None:
        raise ModelLoadError(
            "arch= and weights= are not supported yet",
            do="load the weights into the nn.Module and hand that over",
        )
    settings = checked(
        window=window, mpp=mpp, transform=transform, output=output, features=features,
        activation=activation, names=names, output_stride=output_stride, batch_size=batch_size,
    )  # fmt: skip
    for kind in KINDS:
        if kind.matches(spec):
            return kind.make(spec, settings)
    raise _refusal(spec)


def _refusal(spec: Any) -> ModelLoadError:
    if not isinstance(spec, (str, os.PathLike)):
        return ModelLoadError(
            f"a {type(spec).__name__} is no model",
            do="hand over a builtin name, an nn.Module or a callable",
        )
    text = os.fspath(spec)
    if not isinstance(spec, str) or Path(text).suffix or os.sep in text or Path(text).exists():
        return ModelLoadError(
            "model files are not loaded yet", text, "a file: hand over the loaded nn.Module"
        )
    close = difflib.get_close_matches(text.lower(), BUILTIN, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return ModelLoadError(
        f"no model {text!r}", do=f"{hint}The builtin ones are {', '.join(BUILTIN)}"
    )
