"""Slides that tests make for themselves, with the pixels they must give back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tifffile
from PIL import ImageCms

if TYPE_CHECKING:
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
