"""Patches of a slide with their scores: what is kept, drawn and sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scored:
    """Patches with scores.

    Attributes
    ----------
    coords : (N, 2)
        Top-left (y, x), level-0 pixels.
    scores : (N,) float32
        As the model gives them: what `Bag.patch_score` is.
    patch_size : (float, float)
        (height, width), level-0 pixels.
    weights : bool
        Whether the scores are attention weights already, not raw.
    """

    coords: NDArray[Any]
    scores: NDArray[np.float32]
    patch_size: tuple[float, float]
    weights: bool = False

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.scores)
