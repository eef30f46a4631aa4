"""Things that lie on the slide in great number: cells, strokes, specks, and how to find them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.sample.noise import CELL, Field, Numbers
from napari_wsi_heatmap.sample.shapes import lattice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.sample.shapes import Frame

ANGLES = 24  # orientations of a kind's stamps, over half a turn
BUCKET = 512  # px
REACH = 48  # px around a rectangle in which nuclei may touch it

_MANY = 4096  # buckets in a row, at most


@dataclass(frozen=True)
class Cells:
    """Cells or other things that are stamped, one row each."""

    y: NDArray[np.int32]
    x: NDArray[np.int32]
    kind: NDArray[np.int8]
    stamp: NDArray[np.int16]
    amount: Field

    @classmethod
    def of(cls, y: Numbers, x: Numbers, kind: Any, stamp: Any, amount: Any) -> Cells:
        """Return cells at rounded positions; the rest may be one value for all."""
        count = len(y)
        return cls(
            np.rint(y).astype(np.int32),
            np.rint(x).astype(np.int32),
            np.broadcast_to(kind, count).astype(np.int8),
            np.broadcast_to(stamp, count).astype(np.int16),
            np.broadcast_to(amount, count).astype(np.float32),
        )

    @classmethod
    def joined(cls, parts: list[Cells]) -> Cells:
        """Return all rows of several."""
        names = ("y", "x", "kind", "stamp", "amount")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __len__(self) -> int:
        return len(self.y)

    def where(self, keep: Any) -> Cells:
        """Return the rows that `keep` marks or numbers."""
        return Cells(
            self.y[keep], self.x[keep], self.kind[keep], self.stamp[keep], self.amount[keep]
        )


class Buckets:
    """Cells sorted by squares of the slide, so that a block finds its own at once."""

    def __init__(self, cells: Cells) -> None:
        keys = cells.y.astype(np.int64) // BUCKET * _MANY + cells.x // BUCKET
        self._order = np.argsort(keys, kind="stable")
        self._cells = cells.where(self._order)
        unique, first = np.unique(keys[self._order], return_index=True)
        ends = np.append(first, len(keys))[1:]
        spans = zip(first.tolist(), ends.tolist(), strict=True)
        self._spans = dict(zip(unique.tolist(), spans, strict=True))

    def near(self, y: int, x: int, height: int, width: int, reach: int = REACH) -> Cells:
        """Return the cells within `reach` px of a rectangle, relative to its top left."""
        rows = range((y - reach) // BUCKET, (y + height + reach) // BUCKET + 1)
        columns = range((x - reach) // BUCKET, (x + width + reach) // BUCKET + 1)
        spans = [self._spans.get(r * _MANY + c, (0, 0)) for r in rows for c in columns]
        index = np.concatenate([np.arange(*span) for span in spans])
        # In the order of the whole slide: what lies over what must not depend on the block.
        found = self._cells.where(index[np.argsort(self._order[index])])
        dy, dx = found.y - y, found.x - x
        near = (dy > -reach) & (dy < height + reach) & (dx > -reach) & (dx < width + reach)
        return Cells(dy, dx, found.kind, found.stamp, found.amount).where(near)


@dataclass(frozen=True)
class Spots:
    """Positions where something may be put, px, and their places on the layout."""

    y: Field
    x: Field
    at: tuple[NDArray[np.intp], NDArray[np.intp]]

    @classmethod
    def scattered(
        cls, rng: np.random.Generator, frame: Frame, spacing: float, jitter: float
    ) -> Spots:
        """Return jittered positions all over the slide."""
        return cls.on(frame, *lattice(rng, frame.size, spacing, jitter))

    @classmethod
    def on(cls, frame: Frame, y: Numbers, x: Numbers) -> Spots:
        """Return given positions."""
        return cls(y.astype(np.float32), x.astype(np.float32), frame.cell_of(y, x))

    def __len__(self) -> int:
        return len(self.y)

    def where(self, keep: NDArray[Any]) -> Spots:
        """Return the positions that `keep` marks or numbers."""
        return Spots(self.y[keep], self.x[keep], (self.at[0][keep], self.at[1][keep]))

    def apart(self, rng: np.random.Generator, distance: float) -> Spots:
        """Return positions of which no two are nearer than `distance` px."""
        return self.where(thinned(self.y, self.x, distance, rng.random(len(self))))


def thinned(y: Numbers, x: Numbers, distance: float, rank: Numbers) -> NDArray[np.bool_]:
    """Return which points remain when of each too near pair the one of higher rank goes."""
    from scipy.spatial import cKDTree

    keep = np.ones(len(y), bool)
    if len(y):
        pairs = cKDTree(np.stack([y, x], axis=1)).query_pairs(distance, output_type="ndarray")
        a, b = pairs.T
        keep[np.where(rank[a] > rank[b], a, b)] = False
    return keep


def slope(field: Field) -> tuple[Numbers, Numbers]:
    """Return a field's gradient (y, x) per px."""
    dy, dx = np.gradient(field, np.float32(CELL))
    return np.asarray(dy), np.asarray(dx)


def oriented(rng: np.random.Generator, angle: Numbers, shapes: int) -> NDArray[np.int64]:
    """Return stamps for angles (radians), any of the `shapes` that each orientation has."""
    turn = np.rint(angle / (np.pi / ANGLES)).astype(np.int64) % ANGLES
    return turn * shapes + rng.integers(0, shapes, len(angle))
