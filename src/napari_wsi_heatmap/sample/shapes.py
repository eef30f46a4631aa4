"""Drawing outlines on the layout: signed distances in pixels, positive inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.sample.noise import CELL, MARGIN, Field, Numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAR = -4000.0  # signed distance where nothing is near


@dataclass(frozen=True)
class Frame:
    """The layout's grid: one value per CELL pixels, MARGIN values beyond the slide."""

    shape: tuple[int, int]  # of the fields
    size: tuple[int, int]  # of the slide, px
    unit: float  # px; islands, pen and blur scale with it, cells do not

    @classmethod
    def of(cls, size: tuple[int, int], block: int) -> Frame:
        """Return the frame of a slide of `size` (height, width) painted in whole blocks."""
        rows, columns = (-(-n // block) * block // CELL + 2 * MARGIN for n in size)
        return cls((rows, columns), size, min(size[0], 0.75 * size[1]))

    def positions(self) -> tuple[Field, Field]:
        """Return y (rows, 1) and x (1, columns) of the values, px of the slide."""
        y, x = (((np.arange(n) - MARGIN + 0.5) * CELL).astype(np.float32) for n in self.shape)
        return y[:, None], x[None]

    def blank(self, value: float) -> Field:
        """Return a field of one value."""
        return np.full(self.shape, value, np.float32)

    def cell_of(self, y: Any, x: Any) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the indices of the values nearest to positions on the slide."""
        row = np.clip((np.asarray(y) / CELL).astype(np.intp) + MARGIN, 0, self.shape[0] - 1)
        column = np.clip((np.asarray(x) / CELL).astype(np.intp) + MARGIN, 0, self.shape[1] - 1)
        return row, column


@dataclass(frozen=True)
class Capsules:
    """Rounded bars, one row each: glands, vessels, strokes. Lengths in px, angles in radians."""

    y: Field
    x: Field
    angle: Field
    half_length: Field
    radius: Field

    @classmethod
    def of(cls, y: Any, x: Any, angle: Any, half_length: Any, radius: Any) -> Capsules:
        """Return capsules from anything that broadcasts to the length of `y`."""
        columns = (y, x, angle, half_length, radius)
        return cls(*(np.broadcast_to(a, len(y)).astype(np.float32) for a in columns))

    def __len__(self) -> int:
        return len(self.y)

    def where(self, keep: NDArray[np.bool_]) -> Capsules:
        """Return those of the rows that `keep` marks."""
        return Capsules(
            *(a[keep] for a in (self.y, self.x, self.angle, self.half_length, self.radius))
        )


def draw(
    field: Field, capsules: Capsules, wobble: tuple[Field, Field], inset: Numbers | float = 0.0
) -> None:
    """Raise `field` to the capsules' signed distances, their outlines shifted by `wobble` px."""
    insets = np.broadcast_to(np.asarray(inset, np.float32), len(capsules))
    for i in range(len(capsules)):
        reach = float(capsules.half_length[i] + capsules.radius[i]) + 15 * CELL
        _draw_one(field, capsules, i, reach, wobble, float(insets[i]))


def _draw_one(
    field: Field,
    c: Capsules,
    i: int,
    reach: float,
    wobble: tuple[Field, Field],
    inset: float,
) -> None:
    rows, dy = _window(float(c.y[i]), reach, field.shape[0])
    columns, dx = _window(float(c.x[i]), reach, field.shape[1])
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return
    y = dy[:, None] + wobble[0][rows, columns]
    x = dx[None] + wobble[1][rows, columns]
    sine, cosine = np.sin(c.angle[i]), np.cos(c.angle[i])
    along = x * cosine + y * sine
    along -= np.clip(along, -c.half_length[i], c.half_length[i])
    distance = c.radius[i] - inset - np.hypot(along, y * cosine - x * sine)
    np.maximum(field[rows, columns], distance, out=field[rows, columns])


def _window(centre: float, reach: float, length: int) -> tuple[slice, Field]:
    first = max(0, int((centre - reach) / CELL) + MARGIN)
    last = min(length, int((centre + reach) / CELL) + MARGIN + 1)
    offsets = (np.arange(first, last) - MARGIN + 0.5) * CELL - centre
    return slice(first, last), offsets.astype(np.float32)


def signed_distance(inside: NDArray[np.bool_]) -> Field:
    """Return the distance in px to the border of a mask, positive inside."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    if inside.all() or not inside.any():
        return np.full(inside.shape, -FAR if inside.all() else FAR, np.float32)
    distance = distance_transform_edt(inside) - distance_transform_edt(~inside)
    # Half a value's step on each side of the border, then the stairs of the mask smoothed.
    distance = (distance - 0.5 * np.sign(distance)) * CELL
    return gaussian_filter(distance.astype(np.float32), 1.0)


def lattice(
    rng: np.random.Generator, size: tuple[int, int], spacing: float, jitter: float, reach: int = 96
) -> tuple[Field, Field]:
    """Return jittered hexagonal positions (y, x) on the slide and `reach` px around it."""
    rows = np.arange(-reach, size[0] + reach, spacing * 0.866)
    columns = np.arange(-reach, size[1] + reach, spacing)
    y = np.broadcast_to(rows[:, None], (len(rows), len(columns)))
    x = columns[None] + (np.arange(len(rows)) % 2 * spacing / 2)[:, None]
    shift = rng.uniform(-jitter * spacing, jitter * spacing, (2, *y.shape))
    return (y + shift[0]).ravel().astype(np.float32), (x + shift[1]).ravel().astype(np.float32)
