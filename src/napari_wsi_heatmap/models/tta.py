"""Test-time augmentation: a window is shown mirrored and turned, and what comes back is averaged.

The views are always the same, in one order, so a run with them is as repeatable as one without.
Outputs are averaged after the activation: of probabilities the mean is one. Maps of a window are
turned back first. How far the views disagree is kept as channels of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

import torch

from napari_wsi_heatmap.derived import ENTROPY, STD
from napari_wsi_heatmap.errors import ModelOutputError, ModelRunError
from napari_wsi_heatmap.models.settings import DIHEDRAL, FLIPS

if TYPE_CHECKING:
    from collections.abc import Sequence

Tensor = torch.Tensor


@dataclass(frozen=True)
class View:
    """One way to look at a window: transposed or not, then mirrored along some axes."""

    transposed: bool
    mirrored: tuple[int, ...]
    """Axes of (N, C, H, W)."""

    def of(self, batch: Tensor) -> Tensor:
        """A copy of patches (N, 3, H, W) as this view shows them, in the same layout."""
        last = batch.is_contiguous(memory_format=torch.channels_last)
        turned = batch.transpose(2, 3) if self.transposed else batch
        layout = torch.channels_last if last else torch.contiguous_format
        # Also of the window as it is: a model may change what it sees.
        return turned.flip(self.mirrored).clone(memory_format=layout)

    def back(self, values: Tensor) -> Tensor:
        """Turn maps (N, C, h, w) back; values (N, C) have no direction.

        Raises
        ------
        ModelOutputError
            If maps that are to be turned are not square.
        """
        if values.ndim == 2:
            return values
        straight = values.flip(self.mirrored)
        if not self.transposed:
            return straight
        if values.shape[2] != values.shape[3]:
            raise ModelOutputError(
                "tta='dihedral' turns maps, and the model's have {} x {} cells".format(
                    *values.shape[2:]
                ),
                do="choose tta='flips'",
            )
        return straight.transpose(2, 3)


_MIRRORED: Final = ((), (2,), (3,), (2, 3))
VIEWS: Final = {
    FLIPS: tuple(View(transposed=False, mirrored=axes) for axes in _MIRRORED),
    DIHEDRAL: tuple(View(*view) for view in product((False, True), _MIRRORED)),
}
"""The first of each is the window as it is."""


def views_of(kind: str, batch: Tensor) -> tuple[View, ...]:
    """The views of a kind of augmentation.

    Raises
    ------
    ModelRunError
        If patches (N, 3, H, W) are to be turned that are not square.
    """
    height, width = batch.shape[2:]
    if kind == DIHEDRAL and height != width:
        raise ModelRunError(
            f"tta='dihedral' turns windows, and these have {height} x {width} px",
            do="choose tta='flips', or a square window",
        )
    return VIEWS[kind]


def added_names(kind: str | None, activation: str | None) -> tuple[str, ...]:
    """Names of the channels that say how sure the averages are, behind those of the outputs."""
    if kind is None:
        return ()
    return (STD,) if activation is None else (STD, ENTROPY)


def averaged(seen: Sequence[Tensor], activation: str | None, chosen: int | None = None) -> Tensor:
    """Average what the views gave, and add how far they disagree.

    Parameters
    ----------
    seen : sequence of (N, C) or (N, C, h, w)
        After the activation, turned back.
    activation : {"softmax", "sigmoid", None}
    chosen : int, optional
        The only one of the C outputs that is kept.

    Returns
    -------
    (N, C + 1[, h, w]), with an activation (N, C + 2[, h, w])
        The means; then ``tta_std``, the standard deviation over the views (of the population; of
        several outputs the root of their mean variance); then ``tta_entropy``, the entropy of the
        mean (see `entropy`), which tells of all outputs, whichever is kept.

    Notes
    -----
    Sums in one order. Memory bound: as many outputs of a batch as there are views.
    """
    mean = _sum(seen) / len(seen)
    variance = _sum([(one - mean).square() for one in seen]) / len(seen)
    kept = slice(None) if chosen is None else slice(chosen, chosen + 1)
    parts = [mean[:, kept], variance[:, kept].mean(1, keepdim=True).sqrt()]
    if activation is not None:
        parts.append(entropy(mean, activation))
    return torch.cat(parts, 1)


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """Sum in pairs: of equal values, as many as there are views, it rounds nothing."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return _sum(parts[:half]) + _sum(parts[half:])


def entropy(probabilities: Tensor, activation: str) -> Tensor:
    """Entropy as a share of the largest that there can be: 0 where all is certain.

    Of a softmax −Σ p·ln p / ln C over the C classes; of sigmoids, each of which is yes or no, the
    mean of (−p·ln p − (1 − p)·ln(1 − p)) / ln 2 (Shannon, Bell System Technical Journal 27,
    379–423, 1948).

    Parameters
    ----------
    probabilities : (N, C[, h, w])
    activation : {"softmax", "sigmoid"}

    Returns
    -------
    (N, 1[, h, w])
    """
    p = probabilities.clamp(0, 1)
    if activation == "softmax":
        return torch.special.entr(p).sum(1, keepdim=True) / math.log(max(2, p.shape[1]))
    both = torch.special.entr(p) + torch.special.entr(1 - p)
    return both.mean(1, keepdim=True) / math.log(2)
