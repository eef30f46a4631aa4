"""DS-MIL: attention by likeness to the most suspicious patch of each class.

Li, Li, Eliceiri 2021, "Dual-stream multiple instance learning network for whole slide image
classification with self-supervised contrastive learning", equations 2 to 6, in the layout of the
authors and in that of MIL-Lab, which embeds and normalises, and averages the two streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import nn

from napari_wsi_heatmap.models.mil.layout import Built, Facts, linear_names
from napari_wsi_heatmap.models.mil.net import Embed, MilNet, Scored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_wsi_heatmap.models.mil.layout import Found


class _Streams(MilNet):
    """What both layouts share: two streams, of patches and of the bag."""

    attentions: ClassVar[tuple[str, ...]] = ("attention", "instances")
    """Likeness to the critical patch; or the logits of the patches themselves."""

    def scored(self, logits: Tensor, raw: Tensor, c: Tensor, attention: str) -> Scored:
        """Put together what is drawn."""
        weights = torch.softmax(raw, 0)
        if attention == "instances":
            return Scored(logits, c, weights, "scores", c)
        return Scored(logits, raw, weights, "weights", c)


def _likeness(q: Tensor, c: Tensor) -> Tensor:
    """Scalar products (N, C) with the critical patch of each class, over the root of the width."""
    critical = c.argmax(0)
    return q @ q[critical].T / q.shape[1] ** 0.5


def _convolved(conv: nn.Conv1d, bags: Tensor) -> Tensor:
    """Logits (C,) of the bags (C, width): the kernel is as wide as a bag."""
    return conv(bags[None])[0, :, 0]


class DsMil(_Streams):
    """DS-MIL on the features themselves; its classes do not exclude each other."""

    activation: ClassVar[Literal["softmax", "sigmoid"]] = "sigmoid"

    def __init__(
        self, in_dim: int, hidden: int, classes: int, *, deep: bool, passing: bool
    ) -> None:
        super().__init__()
        self.instance = nn.Linear(in_dim, classes)
        self.query = nn.Linear(in_dim, hidden)
        self.query2 = nn.Linear(hidden, hidden) if deep else None
        self.value = nn.Linear(in_dim, in_dim) if passing else None
        self.conv = nn.Conv1d(classes, classes, in_dim)

    def score(self, x: Tensor, attention: str) -> Scored:
        """Score a bag (N, D)."""
        c = self.instance(x)  # (N, C)
        raw = _likeness(self._queries(x), c)  # (N, C)
        values = x if self.value is None else torch.relu(self.value(x))  # (N, D)
        logits = _convolved(self.conv, torch.softmax(raw, 0).T @ values)
        return self.scored(logits, raw, c, attention)

    def _queries(self, x: Tensor) -> Tensor:
        q = self.query(x)
        return q if self.query2 is None else torch.tanh(self.query2(torch.relu(q)))


class MillabDsMil(_Streams):
    """DS-MIL as MIL-Lab has it: logits are the mean of both streams."""

    def __init__(self, widths: Sequence[int], hidden: int, classes: int) -> None:
        super().__init__()
        width = widths[-1]
        self.embed = Embed(widths)
        self.instance = nn.Linear(width, classes)
        self.query = nn.Linear(width, hidden)
        self.value = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(classes, classes, width)

    def score(self, x: Tensor, attention: str) -> Scored:
        """Score a bag (N, D)."""
        h = self.embed(x)  # (N, width)
        c = self.instance(h)  # (N, C)
        raw = _likeness(self.query(h), c)  # (N, C)
        bags = self.norm(torch.softmax(raw, 0).T @ self.value(h))  # (C, width)
        logits = 0.5 * (_convolved(self.conv, bags) + c.amax(0))
        return self.scored(logits, raw, c, attention)


def original(found: Found) -> Built:
    """Read the authors' layout, also with the classifier of a whole image network."""
    deep, passing = found.any("b_classifier.q.0."), found.any("b_classifier.v.")
    bare = "i_classifier.fc.weight" in found
    instance = "i_classifier.fc" if bare else "i_classifier.fc.0"
    classes, in_dim = found.shape(f"{instance}.weight")
    query = "b_classifier.q.0" if deep else "b_classifier.q"
    hidden = found.shape(f"{query}.weight")[0]
    net = DsMil(in_dim, hidden, classes, deep=deep, passing=passing)
    names = {
        "instance": instance, "query": query, "query2": "b_classifier.q.2",
        "value": "b_classifier.v.1", "conv": "b_classifier.fcc",
    }  # fmt: skip
    facts = Facts("dsmil", "original", in_dim, classes, hidden, 1, None)
    return Built(net, facts, names, (r"i_classifier\.feature_extractor\.",) if bare else ())


def millab(found: Found) -> Built:
    """Read MIL-Lab's layout, whose ``fcc`` no formula uses."""
    numbers, widths = found.widths("patch_embed.")
    classes = found.shape("i_classifier.inst_classifier.weight")[0]
    hidden = found.shape("b_classifier.q.weight")[0]
    names = linear_names("embed", "patch_embed.", numbers) | {
        "instance": "i_classifier.inst_classifier", "query": "b_classifier.q",
        "value": "b_classifier.v.1", "norm": "b_classifier.norm", "conv": "classifier",
    }  # fmt: skip
    facts = Facts("dsmil", "MIL-Lab", widths[0], classes, hidden, 1, None)
    net = MillabDsMil(widths, hidden, classes)
    return Built(net, facts, names, (r"b_classifier\.fcc\.",))
