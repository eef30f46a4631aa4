"""A slide in sRGB: pixels of another one, converted by the ICC profile of its file.

Scanners store the colours of their own sensor, and a profile that says what these look like. A
display wants the converted ones; a model wants those it was trained on, which are nearly always
the stored ones. So this is done only where it is asked for, and every run records which it got.

The rendering intent is the profile's own, as in OpenSlide's tile server; most profiles of
scanners say perceptual, which is also what Pillow takes by default.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import TYPE_CHECKING, Any, final

import numpy as np
from PIL import Image, ImageCms

from napari_wsi_heatmap.errors import one_line
from napari_wsi_heatmap.slides.base import Slide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_wsi_heatmap.slides.base import Mask, Rgb

STRIP = 1 << 19
"""px converted at once: Pillow holds 4 bytes of each beside the region itself."""
INTENTS = {
    ImageCms.Intent.PERCEPTUAL: "perceptual",
    ImageCms.Intent.RELATIVE_COLORIMETRIC: "relative colorimetric",
    ImageCms.Intent.SATURATION: "saturation",
    ImageCms.Intent.ABSOLUTE_COLORIMETRIC: "absolute colorimetric",
}
"""Rendering intents that a profile may state."""
_COLOURS: Rgb = np.ascontiguousarray(np.indices((16, 16, 16), np.uint8).reshape(3, 256, 16).T) * 17
"""(16, 256, 3): the colours of a lattice in RGB."""


@final
class IccSlide(Slide):
    """Another slide, with its colours in sRGB.

    Levels, calibration, properties and associated images are those of the other slide; what was
    not scanned keeps the background. A slide without a profile that can be used stays as it is,
    with a warning; `colours` says what was done.

    Parameters
    ----------
    slide : Slide
        Closing one closes the other.

    Raises
    ------
    SlideReadError
        If the profile cannot be read.

    Notes
    -----
    Memory bound: that of `slide`, and 2 MB for each thread that reads.
    """

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        for name in Slide.__annotations__:
            setattr(self, name, getattr(slide, name))
        self._profile = slide.icc_profile
        # One for all threads: lcms2 only reads a transform while it applies it.
        self._transform, told = _transform_of(self._profile)
        if self._transform is None:
            self.warnings += (f"{told}: colours as stored",)
        else:
            self.colours = told

    @property
    def converted(self) -> bool:
        """Whether pixels are converted; False without a profile that can be used."""
        return self._transform is not None

    def _read(self, level: int, y: int, x: int, height: int, width: int) -> tuple[Rgb, Mask | None]:
        rgb, scanned = self._slide._read(level, y, x, height, width)
        if self._transform is None:
            return rgb, scanned
        shown = convert(rgb, self._transform)
        if scanned is not None:
            shown[~scanned] = rgb[~scanned]
        return shown, scanned

    @property
    def fingerprint(self) -> str:
        """Hex digest of the other slide's fingerprint and of what becomes of some colours.

        A run over converted pixels so never continues one over stored ones. (Not of the profile's
        bytes: backends hand the same profile over in different ones.)
        """
        if self._transform is None:
            return self._slide.fingerprint
        digest = hashlib.sha256(f"{self._slide.fingerprint} {self.colours}".encode())
        digest.update(convert(_COLOURS, self._transform).tobytes())
        return digest.hexdigest()

    @property
    def associated_images(self) -> Mapping[str, Rgb]:
        """Those of the other slide, as stored: the profile is not theirs."""
        return self._slide.associated_images

    @property
    def icc_profile(self) -> bytes | None:
        """ICC profile of the file."""
        return self._profile

    def changed(self) -> str | None:
        """Say why the file is no longer the one that was opened; None while it is."""
        return self._slide.changed()

    def close(self) -> None:
        """Close the other slide."""
        self._slide.close()

    def __getattr__(self, name: str) -> Any:
        # What a backend has beyond the contract, such as `identity`.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._slide, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return IccSlide, (self._slide,)


def convert(rgb: Rgb, transform: ImageCms.ImageCmsTransform) -> Rgb:
    """Apply a transform to pixels (H, W, 3) uint8; returns new ones."""
    height, width = rgb.shape[:2]
    shown = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP // max(1, width))
    for y in range(0, height if width else 0, rows):
        strip = Image.fromarray(rgb[y : y + rows])
        transform.apply_in_place(strip)
        shown[y : y + rows] = np.asarray(strip)
    return shown


def profile_name(profile: bytes | None) -> str | None:
    """Name of an ICC profile as it states it, or its size; None without one."""
    if profile is None:
        return None
    try:
        stated = ImageCms.getProfileDescription(BytesIO(profile))
    except (ImageCms.PyCMSError, OSError):
        return f"{len(profile)} bytes that are no profile"
    return one_line(stated, 80) or "without a name"


def _transform_of(profile: bytes | None) -> tuple[ImageCms.ImageCmsTransform | None, str]:
    """Transform from a profile to sRGB and what it makes of colours, or None and why not."""
    if profile is None:
        return None, "no ICC profile"
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        intent = _intent(source)
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, "RGB", "RGB", intent)
    except (ImageCms.PyCMSError, OSError) as error:
        return None, f"its ICC profile cannot be used ({one_line(error, 80)})"
    return transform, f"sRGB by the ICC profile {profile_name(profile)} ({INTENTS[intent]})"


def _intent(profile: ImageCms.ImageCmsProfile) -> ImageCms.Intent:
    stated = ImageCms.getDefaultIntent(profile)
    return ImageCms.Intent(stated) if stated in INTENTS else ImageCms.Intent.PERCEPTUAL
