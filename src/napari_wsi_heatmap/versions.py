"""Versions of the packages that decide values."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

VERSIONS = (
    *("torch", "Pillow", "numpy", "openslide-bin", "simplejpeg", "imagecodecs"),
    "napari-wsi-heatmap",
)
"""Packages whose version may change values; recorded, and part of a plan's identity."""


def versions() -> dict[str, str]:
    """Versions of the packages that decide values."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
