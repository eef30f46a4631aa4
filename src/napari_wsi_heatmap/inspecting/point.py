"""Everything there is to know about a point of a map: its window, what the model said, its rank."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.inspecting.covering import window_meant, windows_at
from napari_wsi_heatmap.inspecting.patches import checked_index, patches
from napari_wsi_heatmap.inspecting.scores import Scores, is_list, values_at, values_of
from napari_wsi_heatmap.states import HANGS_OVER, NAMES, STATE_BITS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.inspecting.scores import Rank
    from napari_wsi_heatmap.slides.base import Rgb, Slide

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]


@dataclass(frozen=True)
class Inspection:
    """A window, and what the model said of it."""

    point: tuple[float, float]
    """(y, x) that was asked for, level-0 pixels; whole numbers are centres of pixels."""
    covering: Index
    """(m,) flat indices of all windows that cover it, in grid order."""
    index: int | None
    """Flat index of the window meant; None, and nothing below, where there is none."""
    place: tuple[int, int] | None = None
    """(row, column) of the window; None in a list."""
    position: tuple[float, float] = (np.nan, np.nan)
    """Top-left (y, x) of the window, level-0 pixels."""
    size: tuple[float, float] = (np.nan, np.nan)
    """(height, width) of the window, level-0 pixels."""
    state: str = ""
    """pending, done, background, outside or failed"""
    hangs_over: bool = False
    """Whether part of it lies beyond the slide, and was filled with the background."""
    reason: str = ""
    """Why it failed."""
    names: tuple[str, ...] = ()
    """Of the outputs."""
    unit: str = ""
    values: Values | None = None
    """(C,) of the window; of a dense map the mean of its cells."""
    at_point: Values | None = None
    """(C,) of the map at the point; None beside the map."""
    ranks: tuple[Rank | None, ...] = ()
    """Of `values`, one for each output; None where it is not finite."""
    patch: Rgb | None = None
    """(H, W, 3) that the model got, if a slide was given."""


def inspect_point(
    heatmap: Heatmap,
    slide: Slide | str | Path | None,
    y: float,
    x: float,
    *,
    scores: Scores | None = None,
) -> Inspection:
    """Say what there is at a point.

    Parameters
    ----------
    heatmap : Heatmap
        May still grow.
    slide : Slide, path or None
        That it was computed on; None: the patch is left away, and no slide is read.
    y, x : float
        Level-0 pixels; whole numbers are centres of pixels.
    scores : Scores, optional
        Of the heatmap, made before: of dense maps they take time.

    Returns
    -------
    Inspection
        Of the window whose centre is nearest, of those that cover the point and are computed.

    Raises
    ------
    SlideError
        If the slide is missing, another one, or cannot be read there.
    """
    index, covering = window_meant(heatmap, y, x)
    found = Inspection((y, x), covering, index)
    return found if index is None else _filled(found, heatmap, slide, index, scores)


def inspect_window(
    heatmap: Heatmap,
    slide: Slide | str | Path | None,
    index: int,
    *,
    point: tuple[float, float] | None = None,
    scores: Scores | None = None,
) -> Inspection:
    """Say what there is about a window, given by its flat index.

    Parameters
    ----------
    point : (y, x), optional
        That somebody looks at; the window's centre by default.
    heatmap, slide, scores
        As for `inspect_point`.
    """
    chosen = int(checked_index(heatmap, index)[0])
    corner = heatmap.grid.positions(np.array([chosen]))[0]
    centre = corner + (np.asarray(heatmap.window_size) - 1) / 2
    y, x = (float(centre[0]), float(centre[1])) if point is None else point
    found = Inspection((y, x), windows_at(heatmap, y, x), chosen)
    return _filled(found, heatmap, slide, chosen, scores)


def _filled(
    found: Inspection,
    heatmap: Heatmap,
    slide: Slide | str | Path | None,
    index: int,
    scores: Scores | None,
) -> Inspection:
    scores = Scores(heatmap) if scores is None else scores
    top, left = heatmap.grid.positions(np.array([index]))[0].tolist()
    state, values = int(heatmap.state.ravel()[index]), values_of(heatmap, index)
    row, col = (0, 0) if is_list(heatmap) else divmod(index, heatmap.grid.shape[1])
    return replace(
        found,
        place=None if is_list(heatmap) else (row, col),
        position=(top, left),
        size=heatmap.window_size,
        state=NAMES.get(state & STATE_BITS, "unknown"),
        hangs_over=bool(state & HANGS_OVER),
        reason=dict(heatmap.run.get("failed", ())).get(index, ""),
        names=heatmap.names,
        unit=heatmap.run["model"].get("unit") or "",
        values=values,
        at_point=values_at(heatmap, *found.point),
        ranks=tuple(scores.rank(float(v), c) for c, v in enumerate(values)),
        patch=None if slide is None else patches(heatmap, slide, [index])[0],
    )
