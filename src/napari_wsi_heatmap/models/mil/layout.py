"""How the tensors of a checkpoint become a network: strictly, or not at all.

An architecture is built without memory for its weights (on torch's "meta" device) and given those
of the file: a weight that nobody gave could not be computed with, so none is ever random.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from napari_wsi_heatmap.models.mil.net import MilNet

SHOWN = 3
"""Names that a message tells."""


@dataclass(frozen=True)
class Facts:
    """What the tensors say of a model."""

    kind: str
    """abmil, clam_sb, clam_mb, transmil or dsmil."""
    layout: str
    """Whose implementation wrote it."""
    in_dim: int
    """Length of a feature vector."""
    n_classes: int
    """Logits: 1 for a yes-or-no model of one logit, 0 without a classifier."""
    attention_dim: int
    heads: int
    gated: bool | None
    """None where the type has no such choice."""

    def __str__(self) -> str:
        gated = {True: " gated", False: " ungated", None: ""}[self.gated]
        classes = f"{self.n_classes} classes" if self.n_classes > 1 else "one logit"
        heads = f", {self.heads} heads" if self.heads > 1 else ""
        return (
            f"{self.kind} ({self.layout} layout): {self.in_dim} features, attention "
            f"{self.attention_dim}{gated}{heads}, {classes if self.n_classes else 'no classifier'}"
        )


@dataclass(frozen=True)
class Built:
    """A network without weights, and where they lie in the file."""

    net: MilNet
    facts: Facts
    names: Mapping[str, str]
    """Part of the network -> what its tensors' names begin with in the file."""
    spare: tuple[str, ...] = ()
    """Patterns of names that the formula does not use, such as classifiers of training alone."""


@dataclass(frozen=True)
class Found:
    """The tensors of a checkpoint, asked for by their names."""

    path: Path
    tensors: Mapping[str, torch.Tensor] = field(repr=False)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def any(self, beginning: str) -> bool:
        """Whether a name begins so."""
        return any(name.startswith(beginning) for name in self.tensors)

    def shape(self, name: str, ndim: int = 2) -> tuple[int, ...]:
        """Shape of a tensor; raises ModelLoadError if it is missing or of other dimensions."""
        if name not in self.tensors:
            what = f"{name} is missing; {_told('there are', list(self.tensors))}"
            raise ModelLoadError(what, self.path, "choose a whole checkpoint of a MIL model")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != ndim or not all(shape):
            what = f"{name} has shape {shape}, where {ndim} dimensions are expected"
            raise ModelLoadError(what, self.path, "choose a checkpoint of a MIL model")
        return shape

    def numbers(self, beginning: str) -> list[int]:
        """Which numbers follow in the names of weights that begin so, in order."""
        found = (re.match(re.escape(beginning) + r"(\d+)\.", name) for name in self.tensors)
        return sorted({int(match[1]) for match in found if match and len(match[1]) < 4})

    def widths(self, beginning: str) -> tuple[list[int], list[int]]:
        """Numbers of linear layers one after the other, and their widths from the input on."""
        numbers = self.numbers(beginning) or [0]
        shapes = [self.shape(f"{beginning}{n}.weight") for n in numbers]
        return numbers, [shapes[0][1], *(shape[0] for shape in shapes)]


def fill(built: Built, found: Found) -> MilNet:
    """Put the weights in: all of them, and nothing else.

    Raises
    ------
    ModelLoadError
        Naming what is missing, not expected, or of another shape.
    """
    wanted = {key: _name(built.names, key) for key in built.net.state_dict()}
    _check_names(built, found, set(wanted.values()))
    for key, weight in built.net.state_dict().items():
        given, expected = tuple(found.tensors[wanted[key]].shape), tuple(weight.shape)
        if given != expected:
            what = f"{wanted[key]} has shape {given}, and {expected} is expected"
            raise ModelLoadError(f"{what}, as it is {built.facts}", found.path, _DO)
        if not found.tensors[wanted[key]].is_floating_point():
            raise ModelLoadError(f"{wanted[key]} holds whole numbers", found.path, _DO)
    state = {key: found.tensors[name] for key, name in wanted.items()}
    built.net.load_state_dict(state, strict=True, assign=True)
    return built.net.requires_grad_(False).eval()


_DO = "choose an unchanged checkpoint of one of the types that are loaded"


def _name(names: Mapping[str, str], key: str) -> str:
    """Name in the file of one weight of the network."""
    part = max((p for p in names if key == p or key.startswith(f"{p}.")), key=len)
    return names[part] + key[len(part) :]


def _check_names(built: Built, found: Found, wanted: set[str]) -> None:
    spare = [name for name in found.tensors if any(re.match(p, name) for p in built.spare)]
    missing = sorted(wanted - found.tensors.keys())
    unexpected = sorted(found.tensors.keys() - wanted - set(spare))
    if missing or unexpected:
        told = "; ".join(
            filter(None, [_told("missing:", missing), _told("not expected:", unexpected)])
        )
        what = f"the tensors are not those of {built.facts}: {told}"
        raise ModelLoadError(what, found.path, _DO)


def _told(what: str, names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{what} {', '.join(names[:SHOWN])}{more}" if names else ""


def linear_names(part: str, beginning: str, numbers: list[int]) -> dict[str, str]:
    """Names of linear layers ``part.layers.i`` that lie at `numbers` in the file."""
    return {f"{part}.layers.{i}": f"{beginning}{n}" for i, n in enumerate(numbers)}


def attention_names(found: Found, place: str) -> dict[str, str]:
    """Names of the part ``attention`` that lies at `place`, gated or not, in CLAM and MIL-Lab."""
    if found.any(f"{place}.attention_"):
        inside = ("attention_a.0", "attention_b.0", "attention_c")
    else:
        # A dropout between the two moves the second one.
        inside = ("module.0", "", f"module.{(found.numbers(f'{place}.module.') or [0])[-1]}")
    parts = ("attention.tanh", "attention.gate", "attention.score")
    return {part: f"{place}.{name}" for part, name in zip(parts, inside, strict=True)}
