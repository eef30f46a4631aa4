"""The result of a MIL model for one bag of patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.models.mil.net import Drawn

    Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Bag:
    """What a MIL model says of a bag of N patches; all arrays are float32.

    Attributes
    ----------
    logits : (C,)
        Empty without a classifier.
    probabilities : (C,)
        Of one logit the two of "no" and "yes". Softmax, but for DS-MIL in its authors' layout,
        whose classes do not exclude each other, and for one logit: sigmoid.
    scores : (N, K)
        Raw attention of K branches; heads are averaged, so that K = 1.
    weights : (N, K)
        Attention after softmax over the patches; of several heads the mean. For the Nyström
        attention of TransMIL the same as `scores`.
    prediction : int or None
        Class of the highest probability; of one logit 1 from 0.5 on. None without a classifier.
    branch : int
        Column that is drawn: of the predicted class, unless another was asked for.
    drawn : {"scores", "weights"}
        Which of the two is drawn.
    instance_logits : (N, C) or None
        Logits of each patch by itself; DS-MIL has them.
    """

    logits: Values
    probabilities: Values
    scores: Values
    weights: Values
    prediction: int | None
    branch: int
    drawn: Drawn
    instance_logits: Values | None = None

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.scores)

    @property
    def patch_score(self) -> Values:
        """(N,): what is drawn, stored and named."""
        return self.score_of(self.branch)

    def score_of(self, branch: int) -> Values:
        """What is drawn (N,) for a class; with one branch for all classes it is that one.

        Raises
        ------
        ModelError
            If there is no such branch.
        """
        return getattr(self, self.drawn)[:, column(branch, self.scores.shape[1])]


def column(branch: int, branches: int) -> int:
    """Column of a class among K branches; 0 if one serves all."""
    if branches == 1 and branch >= 0:
        return 0
    if not 0 <= branch < branches:
        raise ModelError(f"no branch {branch}", do=f"choose one of 0 … {branches - 1}")
    return branch


def probabilities_of(logits: Values, *, exclusive: bool) -> Values:
    """Probabilities (C,) of logits (C,), two of one logit.

    Parameters
    ----------
    exclusive : bool
        Whether the classes exclude each other: softmax, else sigmoid.
    """
    from scipy.special import expit, softmax

    wide = logits.astype(np.float64)
    if len(wide) == 1:
        wide = np.array([expit(-wide[0]), expit(wide[0])])
    elif len(wide):
        wide = softmax(wide) if exclusive else expit(wide)
    return wide.astype(np.float32)


def prediction_of(logits: Values) -> int | None:
    """Index of the class of the highest probability; None without a classifier."""
    if not len(logits):
        return None
    return int(logits[0] >= 0) if len(logits) == 1 else int(logits.argmax())
