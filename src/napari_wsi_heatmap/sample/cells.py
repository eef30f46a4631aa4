"""Where the cells lie: positions, kinds, orientations, and which block each belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.sample.noise import CELL, Field, smooth_noise, smoothstep
from napari_wsi_heatmap.sample.nuclei import ANGLES, SHAPES, kind_number
from napari_wsi_heatmap.sample.shapes import FAR, lattice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.sample.layout import Layout

BUCKET = 512  # px
REACH = 48  # px around a rectangle in which nuclei may touch it
FAT_SPACING = 132.0  # px, the width of a fat cell


@dataclass(frozen=True)
class Cells:
    """Cells or other stamped things, one row each."""

    y: NDArray[np.int32]
    x: NDArray[np.int32]
    kind: NDArray[np.int8]
    stamp: NDArray[np.int16]
    amount: Field

    @classmethod
    def joined(cls, parts: list[Cells]) -> Cells:
        """Return all rows of several."""
        names = ("y", "x", "kind", "stamp", "amount")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def where(self, keep: Any) -> Cells:
        """Return the rows that `keep` marks or numbers."""
        return Cells(*(a[keep] for a in (self.y, self.x, self.kind, self.stamp, self.amount)))


class Buckets:
    """Cells sorted by squares of the slide, so that a block finds its own at once."""

    def __init__(self, cells: Cells) -> None:
        by, bx = cells.y // BUCKET, cells.x // BUCKET
        order = np.lexsort((np.arange(len(by)), bx, by))
        self.cells, self._order = cells.where(order), order
        keys = by[order].astype(np.int64) * 4096 + bx[order]
        unique, first = np.unique(keys, return_index=True)
        ends = np.append(first[1:], len(keys))
        self._spans = {int(k): (int(a), int(b)) for k, a, b in zip(unique, first, ends, strict=True)}

    def near(self, y: int, x: int, height: int, width: int, reach: int = REACH) -> Cells:
        """Return the cells within `reach` px of a rectangle, relative to its top left."""
        rows = range((y - reach) // BUCKET, (y + height + reach) // BUCKET + 1)
        columns = range((x - reach) // BUCKET, (x + width + reach) // BUCKET + 1)
        spans = [self._spans.get(r * 4096 + c, (0, 0)) for r in rows for c in columns]
        rows_found = np.concatenate([np.arange(a, b) for a, b in spans])
        # In the order of the whole slide: what lies over what must not depend on the block.
        found = self.cells.where(rows_found[np.argsort(self._order[rows_found])])
        dy, dx = found.y - y, found.x - x
        keep = (dy > -reach) & (dy < height + reach) & (dx > -reach) & (dx < width + reach)
        return Cells(dy[keep], dx[keep], *(a[keep] for a in (found.kind, found.stamp, found.amount)))


def slope(field: Field) -> tuple[Field, Field]:
    """Return a field's gradient (y, x) per px."""
    dy, dx = np.gradient(field, np.float32(CELL))
    return dy, dx


def thinned(
    y: Field, x: Field, distance: float, rank: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return which points remain when of each too near pair the one of higher rank goes."""
    from scipy.spatial import cKDTree

    keep = np.ones(len(y), bool)
    if len(y):
        pairs = cKDTree(np.stack([y, x], axis=1)).query_pairs(distance, output_type="ndarray")
        a, b = pairs.T
        keep[np.where(rank[a] > rank[b], a, b)] = False
    return keep


class Placing:
    """Places the cells of one slide, kind after kind."""

    def __init__(self, rng: np.random.Generator, layout: Layout) -> None:
        self.rng, self.layout = rng, layout
        self.solid = np.minimum(layout.tissue - 12, -np.maximum(layout.lumen, layout.vessel) - 7)
        self.parts: list[Cells] = []

    def candidates(self, spacing: float, jitter: float) -> tuple[Field, Field, Any]:
        """Return jittered positions on solid tissue and where they are on the layout."""
        y, x = lattice(self.rng, self.layout.frame.size, spacing, jitter)
        at = self.layout.frame.cell_of(y, x)
        keep = self.solid[at] > 0
        return y[keep], x[keep], (at[0][keep], at[1][keep])

    def add(
        self, name: str, y: Field, x: Field, angle: Any = None, spread: float = 0.3, vary: float = 0.12
    ) -> None:
        """Add cells of a kind; `angle` of their long axis, any without it."""
        count, rng = len(y), self.rng
        turn = rng.uniform(0, np.pi, count) if angle is None else angle + rng.normal(0, spread, count)
        bins = np.rint(turn / (np.pi / ANGLES)).astype(np.int64) % ANGLES
        stamp = bins * SHAPES + rng.integers(0, SHAPES, count)
        amount = rng.normal(1, vary, count).clip(0.55, 1.6)
        self.parts.append(
            Cells(
                np.rint(y).astype(np.int32),
                np.rint(x).astype(np.int32),
                np.full(count, kind_number(name), np.int8),
                stamp.astype(np.int16),
                amount.astype(np.float32),
            )
        )


def place_nuclei(rng: np.random.Generator, layout: Layout, fibres: Field) -> Cells:
    """Return the nuclei of the slide; of two that collide the earlier kind remains."""
    placing = Placing(rng, layout)
    _tumour(placing)
    _lining(placing, "crypt", np.where(layout.mucosa > 0.5, layout.gland, FAR), 14, 2.0, 10.5, rows=1)
    _lining(placing, "columnar", np.where(layout.tumour > 0.5, layout.gland, FAR), 17, 10.0, 11.5, rows=3)
    _lymphocytes(placing)
    _endothelium(placing)
    _spindles(placing, fibres)
    cells = Cells.joined(placing.parts)
    keep = thinned(cells.y, cells.x, 9.5, np.arange(len(cells.y)).astype(np.float64))
    return cells.where(keep)


def _tumour(placing: Placing) -> None:
    layout, rng = placing.layout, placing.rng
    y, x, at = placing.candidates(21.5, 0.30)
    crowd = smooth_noise(rng, layout.frame.shape, 18)[at]
    keep = (layout.nest[at] > 5) & (layout.gland[at] < -2)
    keep &= rng.random(len(y)) < 0.90 + 0.06 * crowd
    y, x, at = y[keep], x[keep], (at[0][keep], at[1][keep])
    near = thinned(y, x, 14.5, rng.random(len(y)))
    y, x = y[near], x[near]
    lot = rng.random(len(y)) - 0.04 * smooth_noise(rng, layout.frame.shape, 25)[at][near]
    for name, part in (
        ("pyknotic", lot < 0.015),
        ("giant", (lot >= 0.015) & (lot < 0.09)),
        ("tumour", lot >= 0.09),
    ):
        placing.add(name, y[part], x[part], vary=0.2)


def _lining(
    placing: Placing, name: str, gland: Field, depth: float, spread: float, apart: float, rows: int
) -> None:
    """Line glands with nuclei that stand upright on their border, in one row or several."""
    layout, rng = placing.layout, placing.rng
    y, x = lattice(rng, layout.frame.size, 9.0, 0.4)
    at = layout.frame.cell_of(y, x)
    keep = (gland[at] > -6) & (gland[at] < depth + 2 * spread + 10 * rows)
    y, x, at = y[keep], x[keep], (at[0][keep], at[1][keep])
    dy, dx = (g[at] for g in slope(layout.gland))
    length = np.hypot(dy, dx) + np.float32(1e-3)
    wanted = rng.normal(depth, spread, len(y)).clip(8, depth + 2 * spread + 4)
    move = np.clip(wanted - layout.gland[at], -25, 25) / length
    y, x = (y + dy * move).astype(np.float32), (x + dx * move).astype(np.float32)
    keep = thinned(y, x, apart, rng.random(len(y)))
    keep &= (placing.solid[layout.frame.cell_of(y, x)] > 0) & (length > 0.3)
    placing.add(name, y[keep], x[keep], np.arctan2(dy, dx)[keep], 0.14)


def _lymphocytes(placing: Placing) -> None:
    layout, rng = placing.layout, placing.rng
    y, x, at = placing.candidates(15.0, 0.27)
    free = (layout.epithelium[at] < -7) & (layout.fatty[at] < 0)
    chance = 0.95 * layout.lymph[at] ** 1.3 + 0.012
    keep = free & (rng.random(len(y)) < chance)
    blast = keep & (rng.random(len(y)) < 0.85 * layout.centre[at])
    placing.add("blast", y[blast], x[blast], vary=0.18)
    keep &= ~blast & (rng.random(len(y)) < 1 - 0.5 * layout.centre[at])
    placing.add("lymphocyte", y[keep], x[keep], vary=0.14)


def _endothelium(placing: Placing) -> None:
    layout, rng = placing.layout, placing.rng
    y, x, at = placing.candidates(9.0, 0.4)
    ring = (layout.vessel[at] > -15) & (rng.random(len(y)) < 0.5)
    y, x, at = y[ring], x[ring], (at[0][ring], at[1][ring])
    keep = thinned(y, x, 19, rng.random(len(y)))
    dy, dx = (g[at] for g in slope(layout.vessel))
    placing.add("spindle", y[keep], x[keep], (np.arctan2(dy, dx) + np.pi / 2)[keep], 0.15)


def _spindles(placing: Placing, fibres: Field) -> None:
    layout, rng = placing.layout, placing.rng
    y, x, at = placing.candidates(34.0, 0.42)
    cellular = smooth_noise(rng, layout.frame.shape, 30)[at]
    near = np.exp(np.minimum(layout.epithelium[at], 0) / 150)
    chance = 0.34 + 0.14 * cellular + 0.35 * near
    keep = (layout.epithelium[at] < -8) & (layout.fatty[at] < 0) & (rng.random(len(y)) < chance)
    placing.add("spindle", y[keep], x[keep], fibres[at][keep], 0.2, vary=0.16)


def place_blood(rng: np.random.Generator, layout: Layout, stamps: int) -> Cells:
    """Return red blood cells in some of the vessels, and a few that leaked out."""
    y, x = lattice(rng, layout.frame.size, 11.5, 0.35)
    at = layout.frame.cell_of(y, x)
    full = smoothstep(-0.7, 0.4, smooth_noise(rng, layout.frame.shape, 40))[at]
    inside = (layout.vessel[at] > 6) & (rng.random(len(y)) < 0.85 * full)
    leaked = (layout.vessel[at] > -110) & (layout.epithelium[at] < -10) & (layout.fatty[at] < 0)
    leaked &= (layout.tissue[at] > 20) & (rng.random(len(y)) < 0.012)
    keep = inside | leaked
    count = int(keep.sum())
    return Cells(
        y[keep].astype(np.int32),
        x[keep].astype(np.int32),
        np.zeros(count, np.int8),
        rng.integers(0, stamps, count).astype(np.int16),
        rng.normal(1, 0.15, count).clip(0.6, 1.4).astype(np.float32),
    )


def place_goblets(rng: np.random.Generator, layout: Layout) -> Cells:
    """Return the mucin vacuoles of the crypts' goblet cells, pointing at the lumen."""
    y, x = lattice(rng, layout.frame.size, 13.0, 0.35)
    at = layout.frame.cell_of(y, x)
    keep = (layout.gland[at] > 27) & (layout.gland[at] < 58) & (layout.lumen[at] < -9)
    keep &= (layout.mucosa[at] > 0.5) & (layout.tissue[at] > 20)
    y, x, at = y[keep], x[keep], (at[0][keep], at[1][keep])
    keep = thinned(y, x, 16.5, rng.random(len(y)))
    dy, dx = (g[at][keep] for g in slope(layout.gland))
    bins = np.rint(np.arctan2(dy, dx) / (np.pi / ANGLES)).astype(np.int64) % ANGLES
    count = int(keep.sum())
    return Cells(
        y[keep].astype(np.int32),
        x[keep].astype(np.int32),
        np.zeros(count, np.int8),
        (bins * SHAPES + rng.integers(0, SHAPES, count)).astype(np.int16),
        rng.uniform(0.75, 1, count).astype(np.float32),
    )


def place_fat(rng: np.random.Generator, layout: Layout) -> Cells:
    """Return the centres of fat cells (amount < 0) and of what lies between the lobules."""
    y, x = lattice(rng, layout.frame.size, FAT_SPACING, 0.24)
    amount = np.where(layout.fatty[layout.frame.cell_of(y, x)] > 0, -1, 1).astype(np.float32)
    zeros = np.zeros(len(y), np.int16)
    return Cells(y.astype(np.int32), x.astype(np.int32), zeros.astype(np.int8), zeros, amount)
