"""Whether the scanned areas of a Ventana slide fit the tiles that its directories list.

In this format an XML, not the size of the image, says which tiles there are. OpenSlide believes
it, looks up tiles beyond the end of its tables and allocates what it finds there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from napari_wsi_heatmap.slides import tiffheader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from napari_wsi_heatmap.slides.tiffheader import Directory

XMP = 700
MAX_XML = 32 << 20
"""Bytes; a slide of ten thousand tiles has 3 MB."""


def misplaced(path: str, directories: tuple[Directory, ...]) -> str | None:
    """Say which tiles the XML of a Ventana slide names and its directories do not have.

    Returns
    -------
    str or None
        None for other slides, and where all fits.
    """
    tiled = [d for d in directories if d.tiled]
    described = [d for d in tiled if XMP in d.entries]
    if not described:
        return None
    if described[0].entries[XMP][1] > MAX_XML:
        return "damaged: the XML that describes its areas is too long"
    root = _parsed(path, described[0])
    if root is None or root.tag != "EncodeInfo":
        return None
    try:
        rows, columns = _needed(root, described[0])
    except ValueError:
        return "damaged: the XML that describes its areas has nonsense for numbers"
    for directory in tiled:
        down = _downsample(described[0], directory)
        if not _holds(directory, -(-rows // down), -(-columns // down)):
            return f"damaged: its XML names {columns} x {rows} tiles, a level does not have them"
    return None


def _parsed(path: str, directory: Directory) -> Element | None:
    raw = tiffheader.value_bytes(path, directory, XMP)
    try:
        return ElementTree.fromstring(raw.rstrip(b"\0"))
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return None  # OpenSlide does not understand it either


def _needed(root: Element, directory: Directory) -> tuple[int, int]:
    """(rows, columns) of tiles that hold all areas."""
    sizes = list(_sizes(root, directory))
    if not sizes:
        return 0, 0
    return max(rows for rows, _ in sizes), max(columns for _, columns in sizes)


def _sizes(root: Element, directory: Directory) -> Iterator[tuple[int, int]]:
    height, width = (max(1, side) for side in directory.tile)
    areas = root.findall("SlideStitchInfo/ImageInfo")
    origins = root.findall("AoiOrigin/*")
    for index, area in enumerate(areas):
        origin: Element | dict[str, str] = origins[index] if index < len(origins) else {}
        top, left = (int(origin.get(name, "0")) for name in ("OriginY", "OriginX"))
        rows, columns = (int(area.get(name, "0")) for name in ("NumRows", "NumCols"))
        if min(top, left, rows, columns) < 0:
            raise ValueError("negative")
        yield top // height + rows, left // width + columns


def _downsample(first: Directory, directory: Directory) -> int:
    of_first, of_this = (_magnification(d) for d in (first, directory))
    return max(1, int(of_first / of_this)) if of_this else 1


def _magnification(directory: Directory) -> float:
    stated = re.search(r"mag=(\d+(?:\.\d*)?)", directory.description)
    return float(stated[1]) if stated else 0.0


def _holds(directory: Directory, rows: int, columns: int) -> bool:
    (height, width), (tile_height, tile_width) = directory.shape, directory.tile
    return rows <= -(-height // tile_height) and columns <= -(-width // tile_width)
