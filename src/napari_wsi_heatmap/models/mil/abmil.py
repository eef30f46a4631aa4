"""ABMIL: one attention over the patches, in the layouts of MIL-Lab, AMLab and TRIDENT.

Ilse, Tomczak, Welling 2018, "Attention-based deep multiple instance learning", equation 7: the
bag is the sum of its embedded patches, weighted by softmax over the raw attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from napari_wsi_heatmap.models.mil.layout import Built, Facts, attention_names, linear_names
from napari_wsi_heatmap.models.mil.net import Attention, Embed, MilNet, Scored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_wsi_heatmap.models.mil.layout import Found
    from napari_wsi_heatmap.models.mil.net import Drawn


class Abmil(MilNet):
    """Embedding, attention of K heads, and one linear classifier over the heads' bags.

    Parameters
    ----------
    widths : sequence of int
        Of the embedding, from the features on; a single one: the features themselves.
    hidden : int
        Width of the attention.
    heads : int
    classes : int
        Logits; 0: no classifier.
    gated : bool
    drawn : {"scores", "weights"}
        Whether attention is drawn before or after softmax.
    """

    patchwise = True

    def __init__(
        self,
        widths: Sequence[int],
        hidden: int,
        heads: int,
        classes: int,
        *,
        gated: bool,
        drawn: Drawn = "scores",
    ) -> None:
        super().__init__()
        self.embed = Embed(widths)
        self.attention = Attention(widths[-1], hidden, heads, gated=gated)
        self.classifier = nn.Linear(heads * widths[-1], classes) if classes else None
        self.drawn: Drawn = drawn

    def score(self, x: Tensor, attention: str) -> Scored:
        """Score a bag (N, D)."""
        h = self.embed(x)  # (N, width)
        raw = self.attention(h)  # (N, heads)
        weights = torch.softmax(raw, 0)
        bag = (weights.T @ h).flatten()  # one head after the other
        logits = None if self.classifier is None else self.classifier(bag)
        return Scored(logits, _mean(raw), _mean(weights), self.drawn)

    def patch_scores(self, x: Tensor) -> Tensor:
        """Raw scores (N, 1)."""
        return _mean(self.attention(self.embed(x)))


class TridentAbmil(MilNet):
    """ABMIL as in TRIDENT's tutorial: a layer before, heads of their own, layers after.

    Parameters
    ----------
    width : int
        Length of a feature vector, kept throughout.
    hidden : int
        Width of each head.
    heads : int
    classifier : (int, int) or None
        Widths of the two layers that classify.
    gated : bool
    """

    patchwise = True

    def __init__(
        self,
        width: int,
        hidden: int,
        heads: int,
        classifier: tuple[int, int] | None,
        *,
        gated: bool,
    ) -> None:
        super().__init__()
        self.before = nn.Linear(width, width)
        self.heads = nn.ModuleList(Attention(width, hidden, 1, gated=gated) for _ in range(heads))
        self.condense = nn.Linear(heads * width, width) if heads > 1 else None
        self.after = nn.Linear(width, width)
        self.first = nn.Linear(width, classifier[0]) if classifier else None
        self.last = nn.Linear(*classifier) if classifier else None

    def score(self, x: Tensor, attention: str) -> Scored:
        """Score a bag (N, D)."""
        h = F.gelu(self.before(x))  # (N, D)
        raw = self._raw(h)  # (N, heads)
        weights = torch.softmax(raw, 0)
        bag = (weights.T @ h).flatten()
        if self.condense is not None:
            bag = self.condense(bag)
        return Scored(self._logits(F.gelu(self.after(bag))), _mean(raw), _mean(weights))

    def patch_scores(self, x: Tensor) -> Tensor:
        """Raw scores (N, 1)."""
        return _mean(self._raw(F.gelu(self.before(x))))

    def _raw(self, h: Tensor) -> Tensor:
        return torch.cat([head(h) for head in self.heads], 1)

    def _logits(self, bag: Tensor) -> Tensor | None:
        if self.first is None or self.last is None:
            return None
        return self.last(torch.relu(self.first(bag)))


def _mean(of_heads: Tensor) -> Tensor:
    return of_heads.mean(1, keepdim=True)


def millab(found: Found, kind: str = "abmil") -> Built:
    """Read MIL-Lab's layout, also with several heads or without a classifier."""
    numbers, widths = found.widths("patch_embed.")
    names = attention_names(found, "global_attn")
    gated = found.any("global_attn.attention_")
    hidden = found.shape(f"{names['attention.tanh']}.weight")[0]
    heads = found.shape(f"{names['attention.score']}.weight")[0]
    classes = found.shape("classifier.weight")[0] if found.any("classifier.") else 0
    net = Abmil(widths, hidden, heads, classes, gated=gated)
    names |= linear_names("embed", "patch_embed.", numbers) | {"classifier": "classifier"}
    return Built(net, Facts(kind, "MIL-Lab", widths[0], classes, hidden, heads, gated), names)


def amlab(found: Found) -> Built:
    """Read AMLab's layout, of AttentionDeepMIL; attention is drawn after softmax, as there."""
    gated = found.any("attention_V.")
    tanh, gate, score = ("attention_V.0", "attention_U.0", "attention_w") if gated else (
        "attention.0", "", "attention.2")  # fmt: skip
    hidden, width = found.shape(f"{tanh}.weight")
    classes = found.shape("classifier.0.weight")[0] if found.any("classifier.") else 0
    net = Abmil([width], hidden, 1, classes, gated=gated, drawn="weights")
    names = {
        "attention.tanh": tanh, "attention.gate": gate, "attention.score": score,
        "classifier": "classifier.0",
    }  # fmt: skip
    facts = Facts("abmil", "AMLab", width, classes, hidden, 1, gated)
    return Built(net, facts, names, (r"feature_extractor_part[12]\.",))


def trident(found: Found) -> Built:
    """Read TRIDENT's layout, of its third tutorial."""
    heads = max(1, len(found.numbers("image_pooler.attention_heads.")))
    hidden, width = found.shape("image_pooler.attention_heads.0.0.weight")
    gated = found.any("image_pooler.gating_layers.")
    sizes = None
    if found.any("classifier."):
        sizes = found.shape("classifier.0.weight")[0], found.shape("classifier.2.weight")[0]
    net = TridentAbmil(width, hidden, heads, sizes, gated=gated)
    names = {
        "before": "pre_attention_layers.0", "condense": "image_pooler.condensing_layer",
        "after": "post_attention_layers.0", "first": "classifier.0", "last": "classifier.2",
    }  # fmt: skip
    for h in range(heads):
        names[f"heads.{h}.tanh"] = f"image_pooler.attention_heads.{h}.0"
        names[f"heads.{h}.gate"] = f"image_pooler.gating_layers.{h}.0"
        names[f"heads.{h}.score"] = f"image_pooler.branching_layers.{h}"
    classes = sizes[1] if sizes else 0
    return Built(net, Facts("abmil", "TRIDENT", width, classes, hidden, heads, gated), names)
