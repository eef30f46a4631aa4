"""Which type and layout a checkpoint is of, told by the names of its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.mil import abmil, clam_mb, clam_sb, dsmil, transmil

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_wsi_heatmap.models.mil.layout import Built, Found

TYPES = ("abmil", "clam_sb", "clam_mb", "transmil", "dsmil")
"""Names that a configuration may state."""


@dataclass(frozen=True)
class Layout:
    """One layout: beginnings of names that all must be there, and what reads it."""

    marks: tuple[str, ...]
    read: Callable[[Found], Built]


LAYOUTS = (
    Layout(("attention_net.0.weight", "classifiers.0.weight"), clam_mb.original),
    Layout(("attention_net.0.weight",), clam_sb.original),
    Layout(("global_attn.", "instance_classifiers."), clam_sb.millab),
    Layout(("global_attn.",), abmil.millab),
    Layout(("cls_token", "pos_layer.proj.weight", "_fc1."), transmil.original),
    Layout(("cls_token", "pos_layer.proj.weight"), transmil.millab),
    Layout(("b_classifier.q", "i_classifier.inst_classifier."), dsmil.millab),
    Layout(("b_classifier.q",), dsmil.original),
    Layout(("attention_V.0.weight",), abmil.amlab),
    Layout(("attention.0.weight",), abmil.amlab),
    Layout(("image_pooler.attention_heads.",), abmil.trident),
)
"""The first whose marks are all there reads the checkpoint."""


def build(found: Found) -> Built:
    """Make the network that a checkpoint is of, without memory for its weights.

    Raises
    ------
    ModelLoadError
        If it is of no type that is known.
    """
    for layout in LAYOUTS:
        if all(map(found.any, layout.marks)):
            with torch.device("meta"):
                return layout.read(found)
    shown = ", ".join(list(found.tensors)[:5]) or "no weights"
    what = f"no MIL model that is known: it holds {shown}"
    do = f"there are {', '.join(TYPES)} in the layouts of their authors, MIL-Lab, TRIDENT and AMLab"
    raise ModelLoadError(what, found.path, do)
