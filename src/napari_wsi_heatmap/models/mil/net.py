"""What all MIL networks share: their outputs, linear layers, attention of one patch alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Drawn = Literal["scores", "weights"]


@dataclass(frozen=True)
class Scored:
    """What a network says of one bag of N patches."""

    logits: Tensor | None
    """(C,); None without a classifier."""
    scores: Tensor
    """(N, K): attention before softmax."""
    weights: Tensor
    """(N, K): attention after softmax over the patches."""
    drawn: Drawn = "scores"
    instances: Tensor | None = None
    """(N, C): logits of each patch, where the network has such a stream."""


class MilNet(nn.Module):
    """A network that maps a bag (N, D) float32 to `Scored`."""

    activation: ClassVar[Literal["softmax", "sigmoid"]] = "softmax"
    """Of several logits; of one it is always the sigmoid."""
    attentions: ClassVar[tuple[str, ...]] = ("attention",)
    """Definitions of the score that can be asked for; the first is the default."""
    patchwise: ClassVar[bool] = False
    """Whether a raw score depends on its patch alone, so that it can be drawn at once."""

    def score(self, x: Tensor, attention: str) -> Scored:
        """Score a bag (N, D) by one of `attentions`."""
        raise NotImplementedError

    def patch_scores(self, x: Tensor) -> Tensor:
        """Raw scores (N, K), where they depend on the patch alone."""
        raise NotImplementedError


class Embed(nn.Module):
    """Linear layers, with a ReLU after each: (N, D) -> (N, width)."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Embed patches."""
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


class Attention(nn.Module):
    """Raw attention of each patch, (N, width) -> (N, K).

    W_c (tanh(W_a h) * sigmoid(W_b h)), or without the second factor if it is not gated: Ilse,
    Tomczak, Welling 2018, "Attention-based deep multiple instance learning", equations 8 and 9.
    """

    def __init__(self, width: int, hidden: int, branches: int, *, gated: bool) -> None:
        super().__init__()
        self.tanh = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden) if gated else None
        self.score = nn.Linear(hidden, branches)

    def forward(self, h: Tensor) -> Tensor:
        """Score patches."""
        a = torch.tanh(self.tanh(h))
        if self.gate is not None:
            a = a * torch.sigmoid(self.gate(h))
        return self.score(a)
