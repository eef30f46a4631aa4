"""What is checked before OpenSlide touches a file inside this process.

A TIFF of 1 kB can make a C library allocate 64 GiB and abort, or divide by zero while it opens.
Neither can be caught in Python, and napari would be gone with all that was open in it. So the
headers are checked first, and then a child process opens the slide: if it dies or falls silent,
the slide is refused. Whatever the child reads badly but survives is only a warning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.slides import areas, diagnose, probe, tiffheader, tifftables, verdicts
from napari_wsi_heatmap.slides.expendable import is_expendable
from napari_wsi_heatmap.slides.probe import MAX_SIDE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.slides.tiffheader import Directory

TILE_SIDES = (16, 4096)
"""A tile is decoded as a whole: 4096 px are 64 MB, 65536 px would be 16 GiB."""
MAX_TILES = 1 << 22
"""Of a level: 524288 px square in tiles of 256; readers keep tables of them."""
MAX_DESCRIPTION = 8 << 20
"""Bytes, room for the pictures in one of Philips; OpenSlide takes five times as much memory."""
MAX_TAGS = 512 << 20
"""Bytes that the values of all tags of a file may take, which libtiff reads at every opening."""

_ONCE = (
    *(tiffheader.WIDTH, tiffheader.LENGTH, tiffheader.TILE_WIDTH, tiffheader.TILE_LENGTH),
    *(tiffheader.TILE_OFFSETS, tiffheader.TILE_COUNTS, tiffheader.SAMPLES),
)
_FLOAT = 3
_REPAIR = "download or copy it again"
_CONVERT = "convert it to 8-bit RGB"


def check(path: str, fingerprint: str) -> tuple[tuple[Directory, ...], str | None]:
    """Refuse a file that is no slide or that would take the process down.

    Parameters
    ----------
    path : str
        The file, opened by nobody yet.
    fingerprint : str
        Under which the child's verdict is kept.

    Returns
    -------
    directories : tuple of Directory
        Of a TIFF; empty for other formats.
    warning : str or None
        What the child could not read.

    Raises
    ------
    SlideOpenError
        With the reason.
    """
    directories = check_header(path)
    return directories, check_child(path, fingerprint)


def check_header(path: str) -> tuple[Directory, ...]:
    """Refuse by the headers alone; see `check`."""
    if not tiffheader.is_tiff(diagnose.read_head(path)):
        return ()
    try:
        directories = tiffheader.directories(path)
    except tiffheader.BadTiff as error:
        raise refuse(diagnose.bad_tiff(error), path) from error
    for reason in _reasons(path, directories):
        if reason:
            raise refuse(reason, path)
    return directories


def _reasons(path: str, directories: tuple[Directory, ...]) -> Iterator[str | None]:
    yield from (dangerous(directory) for directory in directories)
    claimed = sum(directory.claimed for directory in directories)
    if claimed > MAX_TAGS:
        yield f"damaged: its header claims {_mib(claimed)} of tags - {_REPAIR}"
    area = areas.misplaced(path, directories)
    yield area and f"{area} - {_REPAIR}"
    for directory in directories:
        yield heavy_tile(path, directory) or misread(directory)


def check_child(path: str, fingerprint: str) -> str | None:
    """Refuse if a child process dies or falls silent over the file; see `check`."""
    kept, warning = verdicts.recall(fingerprint)
    if kept or is_expendable():
        return warning
    verdict = probe.ask(path)
    if verdict.refusal:
        raise refuse(verdict.refusal, path)
    if verdict.asked:
        verdicts.remember(fingerprint, verdict.warning)
    return verdict.warning


def refuse(reason: str, path: str) -> SlideOpenError:
    """Make the error from a line "cause - what to do"."""
    what, _, do = reason.partition(" - ")
    return SlideOpenError(what, path, do or None)


def dangerous(directory: Directory) -> str | None:
    """Say what in a directory would make a reader allocate, divide or look beyond bounds."""
    height, width = directory.shape
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        return f"damaged: a TIFF directory claims {width} x {height} pixels - {_REPAIR}"
    described = directory.entries.get(tiffheader.DESCRIPTION, (0, 0, 0))[1]
    if described > MAX_DESCRIPTION:
        return (
            f"a TIFF directory has a description of {_mib(described)},"
            f" at most {_mib(MAX_DESCRIPTION)} are read - write it again with a shorter one"
        )
    if not directory.tiled:
        return None
    twice = [tag for tag in _ONCE if tag in directory.repeated]
    if twice:
        return f"damaged: a TIFF directory states tag {twice[0]} twice - {_REPAIR}"
    return _bad_tiles(directory)


def _bad_tiles(directory: Directory) -> str | None:
    (height, width), (tile_height, tile_width) = directory.shape, directory.tile
    low, high = TILE_SIDES
    if not (low <= tile_height <= high and low <= tile_width <= high):
        return (
            f"its tiles are {tile_width} x {tile_height} pixels, only {low} to {high} are read"
            " - write it again with smaller tiles"
        )
    needed = -(-height // tile_height) * -(-width // tile_width)
    if directory.number(tiffheader.PLANAR, 1) == 2:
        needed *= directory.samples
    listed = _listed(directory)
    if listed < needed:
        return (
            f"damaged: the header claims {width} x {height} pixels, which are {needed} tiles,"
            f" and lists {listed} - {_REPAIR}"
        )
    if listed > MAX_TILES:
        return (
            f"a level of {listed} tiles, at most {MAX_TILES} are read"
            " - write it again with larger tiles"
        )
    return None


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def _listed(directory: Directory) -> int:
    missing = (0, 0, 0)
    return max(
        directory.entries.get(tag, missing)[1]
        for tag in (tiffheader.TILE_OFFSETS, tiffheader.STRIP_OFFSETS)
    )


def heavy_tile(path: str, directory: Directory) -> str | None:
    """Say whether a tile claims more bytes than its pixels can need: they would be allocated."""
    if not directory.tiled:
        return None
    height, width = directory.tile
    bits = max(directory.numbers.get(tiffheader.BITS, (8,)), default=8)
    most = 4 * height * width * directory.samples * max(1, bits // 8) + (1 << 20)
    claimed = tifftables.largest_tile(path, directory)
    if claimed <= most:
        return None
    return f"damaged: a tile of {width} x {height} pixels claims {claimed} bytes - {_REPAIR}"


def misread(directory: Directory) -> str | None:
    """Say which pixels OpenSlide would open, and then show wrongly or not at all."""
    if not directory.tiled:
        return None
    if directory.samples > 4:
        return f"{directory.samples} samples per pixel, colours would be wrong - {_CONVERT}"
    bits = max(directory.numbers.get(tiffheader.BITS, (8,)), default=8)
    if bits > 16 or directory.number(tiffheader.SAMPLE_FORMAT, 1) == _FLOAT:
        return f"{bits}-bit samples, which OpenSlide cannot read - {_CONVERT}"
    return None
