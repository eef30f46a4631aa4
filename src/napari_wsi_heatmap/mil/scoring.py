"""A bag of features and a MIL checkpoint: the slide's prediction, and a score of each patch.

Takes seconds for a slide, and neither the slide nor the encoder.

>>> result = score_mil("slide.zarr", "checkpoint.pt")            # a store: the result is kept in it
>>> result = score_mil(read_features("slide.h5"), "checkpoint.pt")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.mil.bags import SlideFeatures, read_features
from napari_wsi_heatmap.mil.result import MilResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_wsi_heatmap.models.mil.bag import Bag
    from napari_wsi_heatmap.models.mil.model import MilModel

    MilLike = str | os.PathLike[str] | MilModel

DEFINITIONS: Final = {
    ("transmil", "dot"): "scalar product of a patch's token with the class token, first layer",
    ("transmil", "nystrom"): "the class token's Nyström attention, second layer, mean of heads",
    ("transmil", "nystrom-1"): "the class token's Nyström attention, first layer, mean of heads",
    ("dsmil", "attention"): "likeness to the critical patch of a class, after softmax",
    ("dsmil", "instances"): "logit of a class for the patch alone",
}
"""What is drawn, by type and attention; of all others `OTHERWISE`."""
OTHERWISE: Final = "attention before softmax, mean of heads"


def score_mil(
    features: SlideFeatures | str | os.PathLike[str],
    mil: MilLike,
    *,
    branch: int | None = None,
    attention: str | None = None,
    save: bool = True,
) -> MilResult:
    """Score the patches of a slide.

    Parameters
    ----------
    features : SlideFeatures or path
        A path is read by `read_features`: .h5, .pt, or a store.
    mil : path or MilModel
        See `load_mil`.
    branch : int, optional
        Class whose attention is drawn, where each has its own; the predicted one unless given.
    attention : str, optional
        Definition of the score, where the type has several.
    save : bool
        Keep the result in the store that the features come from, if they do.

    Returns
    -------
    MilResult
        Its bag is ``mil(features.features)``, to the bit.

    Raises
    ------
    FeatureError
        If the features cannot be read, or are of another length than the checkpoint's.
    ModelError
        If the checkpoint cannot be loaded, or memory runs out.
    """
    mil = loaded_mil(mil)
    if not isinstance(features, SlideFeatures):
        features = read_features(features, need_coords=False, in_dim=mil.facts.in_dim)
    bag = mil(features.features, branch=branch, attention=attention)
    result = result_of(bag, features, mil, attention or mil.attention)
    if save and features.layout == "store" and features.path is not None:
        return result.save(features.path)
    return result


def loaded_mil(mil: MilLike, device: str = "auto") -> MilModel:
    """Return a MIL model; a path is loaded, to the first of the devices that a run may name."""
    if isinstance(mil, (str, os.PathLike)):
        from napari_wsi_heatmap.models.mil import load_mil

        return load_mil(mil, device=device.partition(",")[0])
    return mil


def result_of(bag: Bag, features: SlideFeatures, mil: MilModel, attention: str) -> MilResult:
    """Put together what a model says, and where it comes from."""
    provenance = {
        "mil": _checkpoint(mil, attention),
        "features": _features(features),
        "version": __version__,
    }
    return MilResult(
        bag,
        features.coords,
        features.patch_size,
        features.index,
        provenance,
        (*features.notices, *mil.notices),
    )


def _checkpoint(mil: MilModel, attention: str) -> dict[str, Any]:
    facts = mil.facts
    return {
        "checkpoint": str(mil.path),
        "sha256": mil.sha256,
        "type": facts.kind,
        "layout": facts.layout,
        "in_dim": facts.in_dim,
        "n_classes": facts.n_classes,
        "attention_dim": facts.attention_dim,
        "heads": facts.heads,
        "gated": facts.gated,
        "attention": attention,
        "attentions": list(mil.attentions),
        "definition": DEFINITIONS.get((facts.kind, attention), OTHERWISE),
    }


def _features(features: SlideFeatures) -> dict[str, Any]:
    size = features.patch_size
    return {
        "path": None if features.path is None else str(features.path),
        "layout": features.layout,
        "patches": len(features),
        "patch_size": None if size is None else list(size),
        **_said(features.attrs),
    }


def _said(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """What a file or a record says of the encoder, and of the plan it ran by."""
    known = ("encoder", "encoder_sha256", "extractor", "plan_sha256", "slide", "slide_fingerprint")
    return {name: attrs[name] for name in known if attrs.get(name) is not None}
