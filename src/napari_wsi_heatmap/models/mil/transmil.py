"""TransMIL: two layers of self-attention between the patches, with a token for the class.

Shao et al. 2021, "TransMIL: transformer based correlated multiple instance learning for whole
slide image classification", in the layout of the authors and in that of MIL-Lab.

Neither implementation defines how much a patch counts in the same way, so there are two common
choices; on the same slide they may have nothing in common:

``dot``
    Scalar product of each patch's token with the class token after the first layer: what MIL-Lab
    returns, and the default here. It is not bounded.
``nystrom``
    How much the class token attends to each patch in the second layer, mean over heads; a
    pseudo-inverse is in it, so it may be negative. ``nystrom-1``: in the first layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.mil.layout import Built, Facts, linear_names
from napari_wsi_heatmap.models.mil.net import Embed, MilNet, Scored
from napari_wsi_heatmap.models.mil.nystrom import NystromAttention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_wsi_heatmap.models.mil.layout import Found


class Layer(nn.Module):
    """x + attention(norm(x)), x: (n, dim)."""

    def __init__(self, dim: int, inner: int, heads: int, landmarks: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = NystromAttention(dim, inner, heads, landmarks, kernel)

    def forward(self, x: Tensor, *, row: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attend, and return the first token's attention if asked for."""
        out, rows = self.attention(self.norm(x), row=row)
        return out.add_(x), rows


class Position(nn.Module):
    """The patches, laid out in a square, convolved per channel by three kernels and added."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seven = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.five = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.three = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, square: Tensor) -> Tensor:
        """(1, dim, side, side) -> the same."""
        # One kernel does what the three and the patch itself do together: a third of the memory.
        kernel = self.seven.weight + F.pad(self.five.weight, (1,) * 4)
        kernel += F.pad(self.three.weight, (2,) * 4)
        kernel[:, :, 3, 3] += 1
        biases = (conv.bias for conv in (self.seven, self.five, self.three))
        bias = torch.stack([bias for bias in biases if bias is not None]).sum(0)
        return F.conv2d(square, kernel, bias, padding=3, groups=len(bias))


class TransMil(MilNet):
    """TransMIL.

    Parameters
    ----------
    widths : sequence of int
        Of the embedding, from the features to the width of the tokens.
    inner : int
        Width of all heads together.
    heads, kernel : int
    classes : int
        Logits; 0: no classifier.
    landmarks : int

    Notes
    -----
    Memory bound: about (8 · width + 2 · landmarks) floats for each patch, in no step more: some
    2 GB for 100,000 patches of width 512.
    """

    attentions: ClassVar[tuple[str, ...]] = ("dot", "nystrom", "nystrom-1")

    def __init__(
        self,
        widths: Sequence[int],
        inner: int,
        heads: int,
        kernel: int,
        classes: int,
        landmarks: int,
    ) -> None:
        super().__init__()
        dim = widths[-1]
        self.embed = Embed(widths)
        self.token = nn.Parameter(torch.empty(1, 1, dim))
        self.first = Layer(dim, inner, heads, landmarks, kernel)
        self.position = Position(dim)
        self.second = Layer(dim, inner, heads, landmarks, kernel)
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, classes) if classes else None

    def score(self, x: Tensor, attention: str) -> Scored:
        """Score a bag (N, D)."""
        n, tokens = len(x), self._tokens(self.embed(x))  # (1 + side², dim)
        tokens, row1 = self.first(tokens, row=attention == "nystrom-1")
        dot = tokens[1 : n + 1] @ tokens[0]  # (N,)
        tokens = self._placed(tokens)
        tokens, row2 = self.second(tokens, row=attention == "nystrom")
        bag = self.norm(tokens[0])
        logits = None if self.classifier is None else self.classifier(bag)
        rows = row1 if row2 is None else row2
        if rows is None:
            return Scored(logits, dot[:, None], torch.softmax(dot, 0)[:, None])
        row = rows.mean(0)[1 : n + 1, None]
        return Scored(logits, row, row)

    def _tokens(self, h: Tensor) -> Tensor:
        """The class token, the patches, and the first of them again until they fill a square."""
        side = _side(len(h))
        return torch.cat([self.token[0], h, h[: side * side - len(h)]])

    def _placed(self, tokens: Tensor) -> Tensor:
        side = _side(len(tokens) - 1)
        square = tokens[1:].T.reshape(1, -1, side, side)
        return torch.cat([tokens[:1], self.position(square)[0].flatten(1).T])


def _side(n: int) -> int:
    return math.isqrt(n - 1) + 1


def original(found: Found) -> Built:
    """Read the authors' layout."""
    names = _names(found, "_fc2", "norm", ("layer1", "layer2"), "attn")
    return _build(found, "original", ([0], found.widths("_fc1.")[1]), "_fc1.", names)


def millab(found: Found) -> Built:
    """Read MIL-Lab's layout."""
    names = _names(found, "classifier", "norm", ("blocks.0", "blocks.1"), "attention")
    return _build(found, "MIL-Lab", found.widths("patch_embed."), "patch_embed.", names)


def _names(
    found: Found, classifier: str, norm: str, layers: tuple[str, str], attention: str
) -> dict[str, str]:
    names = {"token": "cls_token", "norm": norm, "classifier": classifier}
    names |= {
        "position.seven": "pos_layer.proj",
        "position.five": "pos_layer.proj1",
        "position.three": "pos_layer.proj2",
    }
    for part, layer in zip(("first", "second"), layers, strict=True):
        names[f"{part}.norm"] = f"{layer}.norm"
        names[f"{part}.attention.qkv"] = f"{layer}.{attention}.to_qkv"
        names[f"{part}.attention.out"] = f"{layer}.{attention}.to_out.0"
        names[f"{part}.attention.residual"] = f"{layer}.{attention}.res_conv"
    return names


def _build(
    found: Found, layout: str, embed: tuple[list[int], list[int]], place: str, names: dict[str, str]
) -> Built:
    numbers, widths = embed
    inner = found.shape(f"{names['first.attention.qkv']}.weight")[0] // 3
    heads, _, kernel, _ = found.shape(f"{names['first.attention.residual']}.weight", 4)
    if inner % heads or not kernel % 2:
        what = f"{heads} heads of {inner} numbers and a kernel of {kernel} do not fit together"
        raise ModelLoadError(what, found.path, "choose an unchanged checkpoint of TransMIL")
    classifier = names["classifier"]
    classes = found.shape(f"{classifier}.weight")[0] if found.any(f"{classifier}.") else 0
    # Both implementations have half as many landmarks as the tokens are wide.
    landmarks = max(1, widths[-1] // 2)
    net = TransMil(widths, inner, heads, kernel, classes, landmarks)
    facts = Facts("transmil", layout, widths[0], classes, widths[-1], heads, None)
    return Built(net, facts, names | linear_names("embed", place, numbers))
