"""CLAM-SB: one attention branch for all classes, in CLAM's own layout and that of MIL-Lab.

Lu et al. 2021, "Data-efficient and weakly supervised computational pathology on whole-slide
images", Nature Biomedical Engineering 5(6), 555-570. Its instance classifiers cluster patches
while it is trained; a slide is scored without them, as by gated `Abmil` of one head.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from napari_wsi_heatmap.models.mil import abmil
from napari_wsi_heatmap.models.mil.layout import Built, Facts, attention_names

if TYPE_CHECKING:
    from napari_wsi_heatmap.models.mil.layout import Found

INSTANCE = r"instance_classifiers\.\d+\.(weight|bias)$"
"""Names of the classifiers of training alone."""


def original(found: Found) -> Built:
    """Read CLAM's layout."""
    names, (width, hidden), in_dim = embedded_attention(found)
    gated = names["attention.gate"].endswith(".attention_b.0")
    classes = found.shape("classifiers.weight")[0]
    net = abmil.Abmil([in_dim, width], hidden, 1, classes, gated=gated)
    facts = Facts("clam_sb", "original", in_dim, classes, hidden, 1, gated)
    return Built(net, facts, names | {"classifier": "classifiers"}, (INSTANCE,))


def millab(found: Found) -> Built:
    """Read MIL-Lab's layout."""
    return dataclasses.replace(abmil.millab(found, "clam_sb"), spare=(INSTANCE,))


def embedded_attention(found: Found) -> tuple[dict[str, str], tuple[int, int], int]:
    """Names of embedding and attention of CLAM, their two widths, and that of the features.

    The attention's number depends on whether there is a dropout before it: it is the last one.
    """
    last = found.numbers("attention_net.")[-1]
    names = attention_names(found, f"attention_net.{last}") | {"embed.layers.0": "attention_net.0"}
    width, in_dim = found.shape("attention_net.0.weight")
    hidden = found.shape(f"{names['attention.tanh']}.weight")[0]
    return names, (width, hidden), in_dim
