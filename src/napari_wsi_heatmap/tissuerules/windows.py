"""The windows of a slide that hold tissue, as a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.grid import lay_grid, resolve_window
from napari_wsi_heatmap.selection import choose_windows, windows_wanted
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import Slide
from napari_wsi_heatmap.states import PENDING, state_of
from napari_wsi_heatmap.tissue import find_tissue

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import LevelChoice
    from napari_wsi_heatmap.selection import Roi
    from napari_wsi_heatmap.sides import Sides


def tissue_windows(
    slide: str | os.PathLike[str] | Slide,
    window: Sides = 224,
    stride: Sides | None = None,
    *,
    tissue: Any = "otsu",
    tissue_min: float | str = 0.1,
    mpp: float | None = None,
    level: LevelChoice = None,
    edge: str = "pad",
    roi: Roi | None = None,
) -> NDArray[np.int64]:
    """Where the windows lie that a run would compute.

    Parameters
    ----------
    slide : path or Slide
    window, stride, mpp, level, edge, tissue, tissue_min, roi
        As for `run`; level 0 unless `mpp` or `level` is given.

    Returns
    -------
    (N, 2) int
        Top-left corners (y, x), level-0 pixels, row by row; N is 0 where there is no tissue.

    Raises
    ------
    SlideError, GridError
        If the slide cannot be read, or the windows or the rule cannot be.

    Examples
    --------
    The tiles of the two-pass threshold of JHancox/BioImaging's notebook:

    >>> coords = tissue_windows("slide.svs", window=64, tissue="variance2:80")
    """
    opened = slide if isinstance(slide, Slide) else open_slide(slide)
    try:
        spec = resolve_window(opened, window, stride, mpp=mpp, level=level)
        grid = lay_grid(spec, opened.levels[spec.level].shape, edge)
        found = find_tissue(opened, tissue, grid, windows_wanted(opened, grid, roi))
        chosen = choose_windows(opened, grid, found, tissue_min=tissue_min, roi=roi)
    finally:
        if opened is not slide:
            opened.close()
    index = np.flatnonzero(state_of(chosen.state) == PENDING)
    return np.rint(grid.positions(index)).astype(np.int64)
