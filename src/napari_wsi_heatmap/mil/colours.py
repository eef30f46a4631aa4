"""Shares 0…1 as colours, the way renderings of attention have them.

Colour c of a table of 256 stands for shares from c/256 on; its red, green and blue, 0…1, are
multiplied by 255 and cut off, not rounded.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import ExportError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Rgb

    Shares = NDArray[np.float64]

COLOURS = 256
JET = (
    ((0.0, 0.0), (0.35, 0.0), (0.66, 1.0), (0.89, 1.0), (1.0, 0.5)),
    ((0.0, 0.0), (0.125, 0.0), (0.375, 1.0), (0.64, 1.0), (0.91, 0.0), (1.0, 0.0)),
    ((0.0, 0.5), (0.11, 1.0), (0.34, 1.0), (0.65, 0.0), (1.0, 0.0)),
)
"""Corners of red, green and blue. With those of all three in one list, as `cmap` has them, some
products with 255 fall just below the whole number that they are."""


def colour_table(name: str) -> Rgb:
    """Make the table of a colour map.

    Parameters
    ----------
    name : str
        That `cmap` knows; Matplotlib's names are among them.

    Returns
    -------
    (256, 3) uint8

    Raises
    ------
    ExportError
        If there is no such map.
    """
    table = np.stack([_ramp(corners) for corners in JET], 1) if name == "jet" else _known(name)
    return (table * 255).astype(np.uint8)


def coloured(shares: Shares, table: Rgb) -> Rgb:
    """Colours (…, 3) of shares 0…1."""
    return table[np.clip(shares * COLOURS, 0, COLOURS - 1).astype(np.uint8)]


def _ramp(corners: tuple[tuple[float, float], ...]) -> Shares:
    """Straight lines between corners, at 256 places from 0 to 1."""
    x, y = np.array(corners).T
    x = x * (COLOURS - 1)
    at = (COLOURS - 1) * np.linspace(0, 1, COLOURS)
    right = np.searchsorted(x, at)[1:-1]
    share = (at[1:-1] - x[right - 1]) / (x[right] - x[right - 1])
    between = share * (y[right] - y[right - 1]) + y[right - 1]
    return np.clip(np.concatenate([y[:1], between, y[-1:]]), 0.0, 1.0)


def _known(name: str) -> Shares:
    from cmap import Colormap

    # Several of its collections may have a name, and it warns of that.
    for known in (f"matplotlib:{name}", name):
        with suppress(ValueError, TypeError):
            table: Shares = np.asarray(Colormap(known).lut(COLOURS))[:, :3]
            return table
    raise ExportError(f"no colour map {name!r}", do="for example jet, coolwarm")
