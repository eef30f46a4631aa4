"""Slides that tests make for themselves, with the pixels they must give back."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from PIL import ImageCms

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

APERIO = "Aperio Image Library v11.2.1\r\n{w}x{h} [0,0 {w}x{h}] (256x256) JPEG/RGB Q=70{more}"


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pixels that differ everywhere, (height, width, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def tissue(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Pixels that JPEG takes well: soft waves over a ramp, (height, width, 3) uint8."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    rng = np.random.default_rng(seed)
    waves = [
        127 + 60 * np.sin(y / rng.uniform(5, 40)) + 60 * np.cos(x / rng.uniform(5, 40))
        for _ in range(3)
    ]
    return np.stack(waves, -1).clip(0, 255).astype(np.uint8)


def strided(level0: NDArray[np.uint8], *factors: int) -> list[NDArray[np.uint8]]:
    """A pyramid whose levels are every f-th pixel of level 0."""
    return [level0, *(np.ascontiguousarray(level0[::f, ::f]) for f in factors)]


def write_tiff(
    path: Path,
    levels: list[NDArray[np.uint8]],
    *,
    tile: int = 256,
    mpp: float | None = 0.25,
    compression: str | None = "zlib",
    descriptions: list[str] | None = None,
    icc: bytes | None = None,
) -> Path:
    """Write a tiled TIFF of several levels; generic unless `descriptions` say otherwise."""
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            mpp_here = None if mpp is None else mpp * levels[0].shape[1] / level.shape[1]
            tiff.write(
                level,
                tile=(tile, tile),
                photometric="ycbcr" if compression == "jpeg" else "rgb",
                compression=compression,
                subfiletype=1 if index else 0,
                resolution=None if mpp_here is None else (1e4 / mpp_here, 1e4 / mpp_here),
                resolutionunit=None if mpp_here is None else "CENTIMETER",
                description=descriptions[index] if descriptions else None,
                metadata=None,
                iccprofile=icc,
            )
    return path


SWAPPED = "blue-red swap"
"""What the profile of `red_for_blue` calls itself."""


def red_for_blue(intent: int = 0) -> bytes:
    """ICC profile of a device that calls red blue: in sRGB the two have changed places."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = [profile[at : at + 12] for at in range(132, 132 + 12 * profile[131], 12)]
    red, blue = (next(t for t in tags if t.startswith(name)) for name in (b"rXYZ", b"bXYZ"))
    swapped = profile.replace(red, b"rXYZ" + blue[4:], 1).replace(blue, b"bXYZ" + red[4:], 1)
    named = swapped.replace("sRGB built-in".encode("utf-16-be"), SWAPPED.encode("utf-16-be"), 1)
    # Without the time at which it was made, it is the same each time.
    return named[:24] + bytes(12) + named[36:64] + intent.to_bytes(4, "big") + named[68:]


def write_aperio(
    path: Path, levels: list[NDArray[np.uint8]], *, tile: int = 256, mpp: str | None = "0.5"
) -> Path:
    """Write what OpenSlide takes for an Aperio SVS with JPEG tiles."""
    height, width = levels[0].shape[:2]
    more = "" if mpp is None else f"|AppMag = 20|MPP = {mpp}"
    texts = [
        APERIO.format(w=width, h=height, more=more)
        + ("" if index == 0 else f" -> {level.shape[1]}x{level.shape[0]} JPEG/RGB Q=70")
        for index, level in enumerate(levels)
    ]
    return write_tiff(path, levels, tile=tile, mpp=None, compression="jpeg", descriptions=texts)


def decoded(path: Path, index: int) -> NDArray[np.uint8]:
    """Pixels of a TIFF directory as another library decodes them."""
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[index].asarray()


def smash_tile(path: Path, index: int, *, page: int = 0) -> None:
    """Overwrite the start of one tile's bytes, so that it cannot be decoded."""
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[page].dataoffsets[index]
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\0" * 16)


def patch_tags(path: Path, page: int, **values: int) -> None:
    """Rewrite tags of a classic TIFF as one LONG each, as a hostile file would."""
    with tifffile.TiffFile(path) as tiff:
        entries = {name: tiff.pages[page].tags[name].offset for name in values}
    with path.open("r+b") as file:
        for name, offset in entries.items():
            file.seek(offset + 2)
            file.write(
                np.array([4], "<u2").tobytes() + np.array([1, values[name]], "<u4").tobytes()
            )


def cut_up(pixels: NDArray[np.uint8], tile: int) -> list[NDArray[np.uint8]]:
    """Tiles of an image, row by row; those at its right and lower border are filled with 0."""
    height, width = (-(-side // tile) * tile for side in pixels.shape[:2])
    whole = np.zeros((height, width, *pixels.shape[2:]), np.uint8)
    whole[: pixels.shape[0], : pixels.shape[1]] = pixels
    corners = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
    return [np.ascontiguousarray(whole[y : y + tile, x : x + tile]) for y, x in corners]


def write_tiles(
    path: Path,
    tiles: Iterable[bytes],
    shape: tuple[int, ...],
    tile: int,
    *,
    compression: int,
    photometric: int = 2,
    **options: object,
) -> Path:
    """Write one level from tiles that are compressed already; an empty one is a missing one."""
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(tiles),
            shape=shape,
            dtype=np.uint8,
            tile=(tile, tile),
            photometric="rgb" if len(shape) == 3 else "minisblack",
            compression=compression,
            metadata=None,
            **options,
        )
    if len(shape) == 3:  # with JPEG, tifffile writes what it likes
        patch_tags(path, 0, PhotometricInterpretation=photometric)
    return path


def jpeg_segments(jpeg: bytes) -> list[bytes]:
    """Markers of a JPEG with what belongs to each; the last one holds the compressed pixels."""
    found, at = [], 2
    while jpeg[at + 1] != 0xDA:
        stop = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        found.append(jpeg[at:stop])
        at = stop
    return [*found, jpeg[at:]]


def without_tables(jpeg: bytes) -> tuple[bytes, bytes]:
    """Split a JPEG into JPEGTables as a TIFF holds them, and the abbreviated rest."""
    tables = b"".join(part for part in jpeg_segments(jpeg) if part[1] in (0xDB, 0xC4))
    rest = b"".join(part for part in jpeg_segments(jpeg) if part[1] not in (0xDB, 0xC4))
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest


DATA_AT = 16
"""Where `raw_tiff` puts the data."""
_FORMS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 7: "B", 13: "I", 16: "Q"}


def raw_tiff(
    path: Path,
    *directories: dict[int, tuple[int, Iterable[int]]],
    data: bytes = b"",
    order: str = "<",
    big: bool = False,
) -> Path:
    """Write a TIFF tag by tag: for each directory, tag -> (type, numbers)."""
    word, room = ("Q", 8) if big else ("I", 4)
    magic = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}H", 43 if big else 42)
    body, links = bytearray(DATA_AT) + data, [4]
    body[:DATA_AT] = magic.ljust(DATA_AT, b"\0")
    if big:
        body[4:8], links = struct.pack(f"{order}HH", 8, 0), [8]
    for tags in directories:
        entries = b""
        for tag, (kind, numbers) in sorted(tags.items()):
            values = np.asarray(numbers).astype(f"{order}u{struct.calcsize(_FORMS[kind])}")
            count = values.size // (2 if kind == 5 else 1)
            raw = values.tobytes()
            if len(raw) > room:
                body += bytes(-len(body) % 8)
                raw, at = struct.pack(order + word, len(body)), raw
                body += at
            entries += struct.pack(f"{order}HH{word}", tag, kind, count) + raw.ljust(room, b"\0")
        body += bytes(-len(body) % 8)
        struct.pack_into(order + word, body, links[-1], len(body))
        body += struct.pack(order + ("Q" if big else "H"), len(tags)) + entries
        links.append(len(body))
        body += bytes(room)
    path.write_bytes(body)
    return path


def tiled(
    shape: tuple[int, int], tile: int, offsets: Iterable[int], counts: Iterable[int], **other: int
) -> dict[int, tuple[int, Iterable[int]]]:
    """Tags of an uncompressed RGB directory for `raw_tiff`; `t262=1` and the like replace some."""
    tags: dict[int, tuple[int, Iterable[int]]] = {
        256: (4, [shape[1]]),
        257: (4, [shape[0]]),
        258: (3, [8, 8, 8]),
        259: (3, [1]),
        262: (3, [2]),
        277: (3, [3]),
        284: (3, [1]),
        322: (4, [tile]),
        323: (4, [tile]),
        324: (4, offsets),
        325: (4, counts),
    }
    return tags | {int(name[1:]): (3, [value]) for name, value in other.items()}
