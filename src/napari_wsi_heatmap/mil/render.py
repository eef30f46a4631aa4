"""Attention of patches as a picture over the slide, as CLAM and as TRIDENT draw it.

Nothing as large as the canvas is held: rows are made in blocks when they are asked for.

Memory bound: a block is at most `BLOCK` px high and wide and what a blur needs around it, about 100
bytes a pixel: 0.2 GB for patches of 64 px on the picture. A row of blocks takes 3 bytes a pixel,
`MOST_ROWS` at most, or 256 rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.mil.blur import blur_pixels, blur_scores, kernel_sizes
from napari_wsi_heatmap.mil.colours import colour_table, coloured
from napari_wsi_heatmap.mil.contours import lay_outlines
from napari_wsi_heatmap.mil.ground import AUTO, blended, lay_ground
from napari_wsi_heatmap.mil.laidpatches import lay_patches
from napari_wsi_heatmap.mil.picture import BAND, Picture
from napari_wsi_heatmap.mil.shares import (
    as_shares,
    in_region,
    least_share,
    pair,
    refuse_nonsense,
    with_score,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.contours import Outline
    from napari_wsi_heatmap.mil.ground import Ground, Roi
    from napari_wsi_heatmap.mil.laidpatches import Box, LaidPatches
    from napari_wsi_heatmap.slides.base import Mask, Rgb, Slide

    Floats = NDArray[np.float64]
    Draw = Callable[[LaidPatches, Box], Rgb]

BLOCK = 1024
"""px: side of a block at most."""
MOST_ROWS = 1 << 25
"""Pixels of the rows that are made at once."""
WHITE = 255
TRIDENT_ALPHA = 0.4


def render_clam(
    slide: Slide,
    coords: NDArray[np.generic],
    scores: NDArray[np.generic],
    *,
    patch_size: float | tuple[float, float],
    vis_level: int = AUTO,
    percentiles: bool = False,
    cmap: str = "jet",
    alpha: float = 0.4,
    blur: bool = False,
    overlap: float = 0.0,
    binarize: bool = False,
    threshold: float = -1,
    blank_canvas: bool = False,
    tissue: Iterable[Outline] | None = None,
    roi: Roi | None = None,
    custom_downsample: float = 1,
) -> Picture:
    """Draw scores of patches over a slide as CLAM's ``visHeatmap`` does.

    Parameters
    ----------
    slide : Slide
    coords : (N, 2)
        Top-left (y, x) of the patches, level-0 pixels.
    scores : (N,)
        As they are to be drawn, 0…1; with `percentiles` any numbers. Patches without a score
        (NaN) are left out.
    patch_size : float or (float, float)
        (height, width) of a patch, level-0 pixels.
    vis_level : int
        Level of the slide to draw on; -1: about 32 level-0 pixels a pixel.
    percentiles : bool
        Draw the rank of each score among those of the patches in the region, of 0…1.
    cmap : str
        Name of a colour map.
    alpha : float
        Share of the colours, 0…1; the rest is the slide.
    blur : bool
        Blur scores, and then colours.
    overlap : float
        Share of a patch that its neighbour covers: makes the blur narrower.
    binarize : bool
        Draw 1 for scores of at least `threshold`, 0 for others; where patches overlap the mean,
        rounded. Patches below the threshold get no colour of their own.
    threshold : float
        0…1; -1: 1 / number of patches, which with percentiles hardly any score is below.
    blank_canvas : bool
        White instead of the slide.
    tissue : iterable of Outline, optional
        Only tissue is coloured.
    roi : (y0, x0, y1, x1), optional
        Level-0 pixels: only this part, with patches whose top left lies in it or on its border.
    custom_downsample : float
        Make the picture so many times smaller at the end.

    Returns
    -------
    Picture

    Raises
    ------
    ExportError
        If an argument makes no sense, or scores are not 0…1.

    Examples
    --------
    >>> picture = render_clam(slide, coords, scores, patch_size=256, percentiles=True)
    >>> picture.save(Path("heatmap.tiff"))

    Notes
    -----
    Pixels are those of CLAM at an explicit `vis_level`, but: scores that a blur brings within the
    last bit of the limit of a colour may get its neighbour, and where the slide was not scanned
    there is its background, not black.
    """
    refuse_nonsense(alpha, threshold)
    ground = lay_ground(slide, vis_level, roi)
    places, values = with_score(coords, scores)
    limit = least_share(binarize, threshold, len(values))
    places, values = in_region(places, values, roi)
    values = as_shares(values, percentiles)
    drawn = values >= limit
    laid = lay_patches(
        places,
        pair(patch_size),
        ground.downsample,
        drawn.astype(np.float64) if binarize else values,
        drawn,
    )
    outlines = None if tissue is None else lay_outlines(tissue, ground.downsample, ground.corner)
    clam = _Clam(
        ground,
        None if outlines is None else outlines.mask,
        colour_table(cmap),
        kernel_sizes(laid.size, overlap) if blur else (1, 1),
        alpha,
        binarize,
        blank_canvas,
    )
    return _picture(ground, laid, clam).shrunk(custom_downsample)


def render_trident(
    slide: Slide,
    coords: NDArray[np.generic],
    scores: NDArray[np.generic],
    *,
    patch_size: float | tuple[float, float],
    vis_level: int = AUTO,
    percentiles: bool = False,
    cmap: str = "coolwarm",
    overlay_only: bool = False,
) -> Picture:
    """Draw scores of patches over a slide as TRIDENT's ``visualize_heatmap`` does.

    0.4 of the colours and 0.6 of the slide everywhere: where there is no patch the colour is
    black, so the slide is dark there.

    Parameters
    ----------
    slide, coords, scores, patch_size, vis_level, percentiles, cmap
        As for `render_clam`.
    overlay_only : bool
        The colours alone, black where there is no patch.

    Returns
    -------
    Picture
    """
    ground = lay_ground(slide, vis_level)
    places, values = with_score(coords, scores)
    values = as_shares(values, percentiles)
    drawn = np.ones(len(values), bool)
    laid = lay_patches(places, pair(patch_size), ground.downsample, values, drawn)
    table = colour_table(cmap)
    alpha = 1.0 if overlay_only else TRIDENT_ALPHA
    return _picture(ground, laid, _Trident(ground, table, alpha))


@dataclass(frozen=True)
class _Clam:
    ground: Ground
    tissue: Callable[[Box], Mask] | None
    table: Rgb
    kernel: tuple[int, int]
    """(y, x) taps of the blur; (1, 1): none."""
    alpha: float
    binary: bool
    blank: bool

    @property
    def reach(self) -> tuple[int, int]:
        """(y, x) px around a block that its pixels depend on."""
        return self.kernel[0] // 2 * 2, self.kernel[1] // 2 * 2

    def __call__(self, patches: LaidPatches, box: Box) -> Rgb:
        """Draw a box of the canvas."""
        wide = self._grown(box)
        inner = _cut(wide, box)
        below = self._below(wide)
        above = below.copy()
        self._colour(above, patches, wide)
        if self.kernel != (1, 1):
            above = blur_pixels(above, self.kernel)
        if self.alpha >= 1:
            return above[inner]
        return blended(above[inner], below[inner], self.alpha)

    def _below(self, box: Box) -> Rgb:
        return np.full((*box[2:], 3), WHITE, np.uint8) if self.blank else self.ground.read(box)

    def _colour(self, pixels: Rgb, patches: LaidPatches, box: Box) -> None:
        """Put colours where there are some."""
        values, drawn = self._values(patches, box)
        if self.tissue is not None:
            drawn &= self.tissue(box)
        pixels[drawn] = coloured(values[drawn], self.table)

    def _values(self, patches: LaidPatches, box: Box) -> tuple[Floats, Mask]:
        wide = self._grown(box)
        inner = _cut(wide, box)
        values, _, drawn = patches.mean(wide)
        drawn = drawn[inner]
        if self.binary:
            values = np.around(values)
        if self.kernel != (1, 1) and drawn.any():
            values = blur_scores(values, self.kernel)
        return values[inner], drawn

    def _grown(self, box: Box) -> Box:
        """The box and what a blur needs around it, as far as there is canvas."""
        y, x = (n // 2 for n in self.kernel)
        top, left = max(0, box[0] - y), max(0, box[1] - x)
        bottom = min(self.ground.shape[0], box[0] + box[2] + y)
        right = min(self.ground.shape[1], box[1] + box[3] + x)
        return top, left, bottom - top, right - left


@dataclass(frozen=True)
class _Trident:
    ground: Ground
    table: Rgb
    alpha: float
    reach: tuple[int, int] = (0, 0)

    def __call__(self, patches: LaidPatches, box: Box) -> Rgb:
        """Draw a box of the canvas."""
        values, covered, _ = patches.mean(box)
        above = coloured(values, self.table)
        above[~covered] = 0
        return above if self.alpha >= 1 else blended(above, self.ground.read(box), self.alpha)


def _picture(ground: Ground, laid: LaidPatches, draw: _Clam | _Trident) -> Picture:
    """A picture that draws its rows in blocks."""
    width = ground.shape[1]
    reach = draw.reach[0]

    def rows(top: int, bottom: int) -> Rgb:
        # Found once for all blocks of these rows: there may be a million patches.
        near = laid.within((top - reach, -reach, bottom - top + 2 * reach, width + 2 * reach))
        made = np.empty((bottom - top, width, 3), np.uint8)
        for left in range(0, width, BLOCK):
            box = top, left, bottom - top, min(BLOCK, width - left)
            made[:, left : left + BLOCK] = draw(near, box)
        return made

    mpp = ground.slide.mpp
    down = ground.downsample
    pixel = mpp and (mpp[0] * down[0], mpp[1] * down[1])
    # The wider a blur reaches, the more rows are worth its being computed for some of them twice.
    wanted = min(8 * reach, BLOCK, MOST_ROWS // width)
    at_once = max(BAND, wanted // BAND * BAND)
    return Picture(ground.shape, rows, ground.origin, down, pixel, at_once)


def _cut(wide: Box, box: Box) -> tuple[slice, slice]:
    """Where a box lies within a wider one."""
    y, x = box[0] - wide[0], box[1] - wide[1]
    return slice(y, y + box[2]), slice(x, x + box[3])
