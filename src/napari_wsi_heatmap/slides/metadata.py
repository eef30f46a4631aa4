"""What a slide says about itself: calibration, bounds, background, and what to warn of."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import SlideOpenError
from napari_wsi_heatmap.slides import tiffheader
from napari_wsi_heatmap.slides.base import believable_mpp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_wsi_heatmap.slides.base import Level
    from napari_wsi_heatmap.slides.tiffheader import Directory

    Mpp = tuple[float, float]

WHITE = (255, 255, 255)
_MICRON = ("", "µm", "μm", "um")
_MOST_UNEQUAL = 0.01
"""Relative difference of a level's two downsamples that rounding does not explain."""
_SEPARATED = 5


def calibration(
    properties: Mapping[str, str], description: str
) -> tuple[Mpp | None, str | None, str | None]:
    """Find the size of a level-0 pixel.

    Parameters
    ----------
    properties : mapping
        OpenSlide's.
    description : str
        ImageDescription of a TIFF; the OME-XML in it states what OpenSlide does not read.

    Returns
    -------
    mpp : (float, float) or None
        (y, x) µm per pixel.
    source : str or None
        Where it stands.
    warning : str or None
        Why there is none.
    """
    stated = properties.get("openslide.mpp-y"), properties.get("openslide.mpp-x")
    if None not in stated:
        mpp, warning = believable_mpp(stated, "the file")
        return mpp, "the file's properties", warning
    stated = _ome_size(description, "Y"), _ome_size(description, "X")
    if None not in stated:
        mpp, warning = believable_mpp(stated, "the file's OME-XML")
        return mpp, "the file's OME-XML", warning
    return None, None, "the file states no pixel size (µm per pixel): treated as uncalibrated"


COMPRESSIONS = {
    1: "none", 5: "LZW", 6: "old-style JPEG", 7: "JPEG", 8: "deflate", 32773: "PackBits",
    32946: "deflate", 33003: "JPEG 2000 (YCbCr)", 33005: "JPEG 2000 (RGB)",
    34712: "JPEG 2000", 34925: "LZMA", 50000: "zstd", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip
"""Of TIFF, by their number."""


def compression(directories: Sequence[Directory], properties: Mapping[str, str]) -> str | None:
    """Name how the tiles of level 0 are compressed, or None where it is not known."""
    tiled = next((d for d in directories if d.tiled), None)
    if tiled is not None:
        number = tiled.number(tiffheader.COMPRESSION, 1)
        return COMPRESSIONS.get(number, f"TIFF compression {number}")
    if properties.get("openslide.vendor") in ("hamamatsu", "mirax"):
        return properties.get("mirax.LAYER_0_LEVEL_0_SECTION.IMAGE_FORMAT", "JPEG")
    return None


def _ome_size(description: str, axis: str) -> str | None:
    size = re.search(rf'\bPhysicalSize{axis}="([^"]*)"', description)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]*)"', description)
    if size is None or (unit is not None and unit[1] not in _MICRON):
        return None
    return size[1]


def ome_power(description: str) -> float | None:
    """Magnification of the objective as OME-XML states it, or None."""
    stated = re.search(r'\bNominalMagnification="([^"]*)"', description)
    return objective_power({"openslide.objective-power": stated[1]}) if stated else None


def tiff_properties(directories: Sequence[Directory]) -> dict[str, str]:
    """What the first directory of a TIFF says, named as OpenSlide names it."""
    names = {tiffheader.DESCRIPTION: "tiff.ImageDescription", tiffheader.SOFTWARE: "tiff.Software"}
    texts = directories[0].texts
    return {name: texts[tag] for tag, name in names.items() if tag in texts}


def caller_mpp(mpp: float | Sequence[float], path: str) -> Mpp:
    """Check what the caller states, one value or (y, x) µm per pixel."""
    pair = tuple(mpp) if isinstance(mpp, Iterable) else (mpp, mpp)
    if len(pair) != 2:
        raise SlideOpenError(f"mpp={mpp!r} is not one value or (y, x)", path)
    checked, _ = believable_mpp(pair, "mpp=")
    if checked is None:
        raise SlideOpenError(
            f"mpp={mpp!r} is not a pixel size", path, "give µm per pixel, 0.05 to 20"
        )
    return checked


def bounds(properties: Mapping[str, str], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """(y, x, height, width) of the scanned part in level-0 pixels; the whole slide if unsaid."""
    names = ("y", "x", "height", "width")
    try:
        y, x, height, width = (int(properties[f"openslide.bounds-{name}"]) for name in names)
    except (KeyError, ValueError):
        return 0, 0, *shape
    y, x = max(0, y), max(0, x)
    height, width = min(height, shape[0] - y), min(width, shape[1] - x)
    return (y, x, height, width) if height > 0 and width > 0 else (0, 0, *shape)


def background(properties: Mapping[str, str]) -> tuple[int, int, int]:
    """RGB of what was not scanned: what the file says, else white."""
    text = properties.get("openslide.background-color", "")
    if not re.fullmatch("[0-9A-Fa-f]{6}", text):
        return WHITE
    red, green, blue = bytes.fromhex(text)
    return red, green, blue


def objective_power(properties: Mapping[str, str]) -> float | None:
    """Magnification of the objective, or None where none is stated."""
    try:
        power = float(properties["openslide.objective-power"].replace(",", "."))
    except (KeyError, ValueError):
        return None
    return power if math.isfinite(power) and power > 0 else None


def level_warnings(levels: Sequence[Level]) -> Iterator[str]:
    """Warn of levels that are not the same picture, only smaller."""
    for index, level in enumerate(levels):
        y, x = level.downsample
        if abs(y / x - 1) > _MOST_UNEQUAL:
            yield f"level {index} is {y:.4g} times smaller in y and {x:.4g} in x"


def file_warnings(
    path: str, directories: Sequence[Directory], properties: Mapping[str, str]
) -> Iterator[str]:
    """Warn of what OpenSlide leaves out without saying so."""
    vendor = properties.get("openslide.vendor")
    if vendor == "mirax":
        yield from _mirax_warnings(os.path.splitext(path)[0])
    tiled = [directory for directory in directories if directory.tiled]
    if tiled:
        yield from _pixel_warnings(tiled[0])
    if tiled and vendor in (None, "generic-tiff"):
        yield from _generic_warnings(tiled[0])


def left_out(directories: Sequence[Directory], properties: Mapping[str, str]) -> Iterator[str]:
    """Warn of levels that OpenSlide does not see."""
    generic = properties.get("openslide.vendor") == "generic-tiff"
    tiled = [directory for directory in directories if directory.tiled]
    if generic and tiled and tiffheader.SUB_DIRECTORIES in tiled[0].entries:
        yield "its coarser levels (SubIFDs of an OME-TIFF) are not read: one level only"


def _mirax_warnings(folder: str) -> Iterator[str]:
    try:
        index = Path(folder, "Slidedat.ini").read_text("utf-8", "replace")
    except OSError:
        return
    names = [name.strip() for name in re.findall(r"(?m)^FILE_\d+\s*=(.+)$", index)]
    missing = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        yield f"of its data files {listed} {'is' if len(missing) == 1 else 'are'} missing"


def _pixel_warnings(directory: Directory) -> Iterator[str]:
    extra = directory.number(tiffheader.EXTRA_SAMPLES)
    photometric = directory.number(tiffheader.PHOTOMETRIC)
    if directory.number(tiffheader.BITS, 8) == 16:
        yield "16-bit pixels are reduced to 8 bit (the upper 8)"
    if photometric == _SEPARATED:
        yield "CMYK pixels are converted to RGB"
    elif directory.samples == 2 and extra == 0:
        yield "of its 2 bands only the first is shown, as grey"
    elif directory.samples == 4 and extra != 2:
        yield "its fourth sample is taken for transparency: colours may be wrong"


def _generic_warnings(directory: Directory) -> Iterator[str]:
    text = directory.description
    if "DPUfsImport" in text or directory.texts.get(tiffheader.SOFTWARE, "").startswith("Philips"):
        yield "a Philips slide whose description is broken: no calibration, levels are padded"
    planes = re.findall(r'\bSize([ZT])="(\d+)"', text)
    if "<OME" in text and any(int(n[:9]) > 1 for _, n in planes):
        yield "of its planes (Z or T) only the first is shown"
