"""Which directories of a TIFF make up the pyramid of the slide.

Where OpenSlide knows the file, its levels decide: each must be one directory of the same size.
Only OME-TIFF is read by its own rules (coarser levels as SubIFDs, or as pages of their own),
since OpenSlide takes it for a generic TIFF and sees one level; and files with a codec that
OpenSlide does not have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_wsi_heatmap.slides import tiffheader
from napari_wsi_heatmap.slides.file import NotSureError
from napari_wsi_heatmap.slides.tifflayout import Tags, TiledLevel, tiled_level

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_wsi_heatmap.slides.file import SlideFile
    from napari_wsi_heatmap.slides.openslide import OpenSlideSlide
    from napari_wsi_heatmap.slides.tiffheader import Directory

    Shape = tuple[int, int]

PLAIN_GRIDS = ("aperio", "generic-tiff", "philips", "trestle")
"""OpenSlide's names of formats whose levels are one plain grid of tiles each."""
NEW_SUBFILE_TYPE = 254
_REDUCED = 1
_SHRINKS_BY = 1.3
"""A page that is less than this much smaller than the one before is no further level."""
_SAME_ASPECT = 0.02


def is_ome(directories: Sequence[Directory]) -> bool:
    """Tell whether the first directory describes itself in OME-XML."""
    return bool(directories) and "<OME" in directories[0].description[:4096]


def pyramid_of(
    file: SlideFile, tags: Tags, known: OpenSlideSlide | None
) -> tuple[str, tuple[TiledLevel, ...]]:
    """Name the format of a TIFF, and lay out its levels.

    Parameters
    ----------
    file : SlideFile
        With its directories.
    tags : Tags
    known : OpenSlideSlide or None
        The same file as OpenSlide sees it; None where it has not got the codec.

    Raises
    ------
    NotSureError
    """
    if is_ome(file.directories) and (known is None or known.format == "generic-tiff"):
        return "ome-tiff", ome_levels(file.path, tags, file.directories)
    if known is None:
        return "tiff", plain_levels(tags, file.directories)
    return str(known.format), levels_like(tags, file.directories, known)


def levels_like(
    tags: Tags, directories: Sequence[Directory], known: OpenSlideSlide
) -> tuple[TiledLevel, ...]:
    """Lay out the levels that OpenSlide found, finest first.

    Raises
    ------
    NotSureError
        Where OpenSlide does more than placing tiles, or its levels are not found.
    """
    if known.format not in PLAIN_GRIDS:
        raise NotSureError(f"format {known.format}")
    if any(part != "0" for part in known.properties.get("trestle.OverlapsXY", "").split()):
        raise NotSureError("its tiles overlap")
    padded = known.format == "philips"
    return tuple(
        tiled_level(tags, _directory_of(directories, level.shape, level.tile, padded), level.shape)
        for level in known.levels
    )


def _directory_of(
    directories: Iterable[Directory], shape: Shape, tile: Shape, padded: bool
) -> Directory:
    """Find the one directory that holds a level.

    Philips pads its levels to whole tiles, and OpenSlide states them without.
    """
    found = [
        directory
        for directory in directories
        if directory.tiled
        and directory.tile == tile
        and (directory.shape == shape or (padded and _padded(directory.shape, shape, tile)))
    ]
    closest = [d for d in found if _area(d.shape) == min(_area(d.shape) for d in found)]
    if len(closest) != 1:
        raise NotSureError(f"{len(closest)} images of {shape[0]} x {shape[1]} px in it")
    return closest[0]


def _area(shape: Shape) -> int:
    return shape[0] * shape[1]


def _padded(stored: Shape, shape: Shape, tile: Shape) -> bool:
    return all(0 <= s - n < 2 * t for s, n, t in zip(stored, shape, tile, strict=True))


def ome_levels(path: str, tags: Tags, directories: Sequence[Directory]) -> tuple[TiledLevel, ...]:
    """Lay out the levels of an OME-TIFF: the first image and its smaller copies.

    Raises
    ------
    NotSureError
        Where its first image is not RGB in tiles.
    """
    first = directories[0]
    _first_plane_first(first)
    try:
        smaller = tiffheader.sub_directories(path, first) or _reduced_pages(directories)
    except tiffheader.BadTiff as error:
        raise NotSureError(f"its SubIFDs: {error}") from error
    levels = [tiled_level(tags, first)]
    for directory in sorted(smaller, key=lambda d: -_area(d.shape)):
        if _continues(levels[-1].shape, directory.shape):
            levels.append(tiled_level(tags, directory))
    return tuple(levels)


def _first_plane_first(first: Directory) -> None:
    """Make sure that the first directory is the first plane, and all of it."""
    index = re.search(r'<TiffData\b[^>]*\bIFD="(\d+)"', first.description)
    channels = re.search(r'\bSizeC="(\d+)"', first.description)
    if index is not None and index[1] != "0":
        raise NotSureError(f"its first plane stands in directory {index[1]}")
    if channels is not None and channels[1] not in ("1", str(first.samples)):
        raise NotSureError(f"its {channels[1]} channels stand in directories of their own")


def plain_levels(tags: Tags, directories: Sequence[Directory]) -> tuple[TiledLevel, ...]:
    """Lay out a TIFF that OpenSlide does not read: the first image and reduced ones after it."""
    first = directories[0]
    levels = [tiled_level(tags, first)]
    for directory in sorted(_flagged(tags, directories), key=lambda d: -_area(d.shape)):
        if _continues(levels[-1].shape, directory.shape):
            levels.append(tiled_level(tags, directory))
    return tuple(levels)


def _flagged(tags: Tags, directories: Sequence[Directory]) -> list[Directory]:
    return [
        d for d in directories[1:] if d.tiled and tags.number(d, NEW_SUBFILE_TYPE, 0) & _REDUCED
    ]


def _reduced_pages(directories: Sequence[Directory]) -> list[Directory]:
    """Pages of an older OME-TIFF that hold the first image at lower resolution.

    Label and macro images are no copies: their aspect differs. Planes of a stack are none
    either: their size is the same.
    """
    first = directories[0]
    return [
        d
        for d in directories[1:]
        if d.tiled and d.samples == first.samples and _same_aspect(first.shape, d.shape)
    ]


def _same_aspect(one: Shape, other: Shape) -> bool:
    # A row more or less decides the aspect of a level that is a few pixels high.
    slack = _SAME_ASPECT + 1 / max(1, min(other))
    return abs(one[0] * other[1] / max(1, one[1] * other[0]) - 1) <= slack


def _continues(finer: Shape, shape: Shape) -> bool:
    return _same_aspect(finer, shape) and _area(finer) >= _SHRINKS_BY**2 * _area(shape)
