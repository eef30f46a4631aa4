"""Models that a record names, made again when a run is continued."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models import BUILTIN, load_model

if TYPE_CHECKING:
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust

    Spec = str | dict[str, Any] | None

AS_VECTORS = "as_vectors"
"""In a record: its outputs (N, D) were taken for feature vectors; see `models.vectors`."""
KEYWORDS = ("arch", "output", "features", "activation", "tta", "names", "output_stride")
"""What a record may say to `load_model`: it comes from a file, so no consent is among them."""


def spec_of(model: HeatmapModel) -> Spec:
    """What `load_again` makes a model from; None if it, or a part of it, came from Python.

    A kind of model that is made from files has a method ``spec()``, which returns a dict for JSON:
    ``path``, and keywords of `load_model`.
    """
    if model.name in BUILTIN and load_model(model.name, mpp=model.mpp).sha256 == model.sha256:
        added = {"output": model.output, "tta": model.tta}
        chosen = {key: value for key, value in added.items() if value is not None}
        return {"path": model.name, **chosen} if chosen else model.name
    spec = getattr(model, "spec", None)
    return spec() if callable(spec) else None


def load_again(recorded: Spec, *, given: Any = None, trust: Trust = None) -> HeatmapModel:
    """Load the model of a record.

    Parameters
    ----------
    recorded : str or dict
        What `spec_of` returned.
    given : optional
        A model handed over anew; a path: where the file lies now.
    trust : str, sequence of str or bool, optional
        As for `load_model`; consent that was given before still holds.

    Raises
    ------
    ModelLoadError
        If the file is not there any more, or is another kind of model now.
    """
    if isinstance(recorded, dict) and recorded.get(AS_VECTORS):
        from napari_wsi_heatmap.models.vectors import as_encoder

        plain = {key: value for key, value in recorded.items() if key != AS_VECTORS}
        return as_encoder(load_again(plain, given=given, trust=trust))
    moved = isinstance(given, (str, os.PathLike)) and given not in BUILTIN
    if given is not None and not (moved and isinstance(recorded, dict)):
        return load_model(given, trust=trust)
    if not isinstance(recorded, dict):
        return load_model(recorded, trust=trust)
    path = recorded.get("path")
    if not isinstance(path, str) or not set(recorded) <= {"path", *KEYWORDS}:
        raise ModelLoadError("the record does not say which file the model was", do="hand it over")
    settings = {key: recorded.get(key) for key in KEYWORDS}
    return load_model(given if moved else path, trust=trust, **settings)
