"""CLAM-MB: an attention branch and a classifier for each class, in CLAM's own layout.

Lu et al. 2021, Nature Biomedical Engineering 5(6), 555-570: class c is judged by the patches that
its own branch attends to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_wsi_heatmap.models.mil.clam_sb import INSTANCE, embedded_attention
from napari_wsi_heatmap.models.mil.layout import Built, Facts
from napari_wsi_heatmap.models.mil.net import Attention, Embed, MilNet, Scored

if TYPE_CHECKING:
    from torch import Tensor

    from napari_wsi_heatmap.models.mil.layout import Found


class ClamMb(MilNet):
    """Embedding, attention of one branch per class, and one classifier for each."""

    patchwise = True

    def __init__(self, in_dim: int, width: int, hidden: int, classes: int, *, gated: bool) -> None:
        super().__init__()
        self.embed = Embed([in_dim, width])
        self.attention = Attention(width, hidden, classes, gated=gated)
        self.classifiers = nn.ModuleList(nn.Linear(width, 1) for _ in range(classes))

    def score(self, x: Tensor, attention: str) -> Scored:
        """Score a bag (N, D)."""
        h = self.embed(x)  # (N, width)
        raw = self.attention(h)  # (N, C)
        weights = torch.softmax(raw, 0)
        bags = weights.T @ h  # (C, width)
        each = zip(self.classifiers, bags, strict=True)
        logits = torch.cat([classifier(bag) for classifier, bag in each])
        return Scored(logits, raw, weights)

    def patch_scores(self, x: Tensor) -> Tensor:
        """Raw scores (N, C)."""
        return self.attention(self.embed(x))


def original(found: Found) -> Built:
    """Read CLAM's layout."""
    names, (width, hidden), in_dim = embedded_attention(found)
    gated = names["attention.gate"].endswith(".attention_b.0")
    classes = found.shape(f"{names['attention.score']}.weight")[0]
    net = ClamMb(in_dim, width, hidden, classes, gated=gated)
    facts = Facts("clam_mb", "original", in_dim, classes, hidden, 1, gated)
    return Built(net, facts, names | {"classifiers": "classifiers"}, (INSTANCE,))
