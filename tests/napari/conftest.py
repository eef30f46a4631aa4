"""Settings of their own for tests of the napari side, and small slide files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

# napari reads this when its settings are imported: the user's own must not be touched.
os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp(prefix="napari-")) / "settings.yaml")

APERIO = "Aperio Image Library v12.0.15\n{width}x{height}|AppMag = 20|MPP = {mpp}"


def write_slide(path, pixels, mpp=0.5, factors=(), description=None):
    """Write a tiled TIFF that OpenSlide reads, with levels that skip pixels."""
    if description is None and mpp is not None:
        description = APERIO.format(width=pixels.shape[1], height=pixels.shape[0], mpp=mpp)
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, description=description, **options)
        for factor in factors:
            level = np.ascontiguousarray(pixels[::factor, ::factor])
            tiff.write(level, description=description, **options)
    return str(path)


@pytest.fixture(scope="session")
def pixels():
    """(1500, 1300, 3) uint8 that encode their position."""
    y, x = np.mgrid[:1500, :1300]
    return np.stack([y % 256, x % 256, (y // 256) * 16 + x // 256], axis=-1).astype(np.uint8)


@pytest.fixture(scope="session")
def slide_file(tmp_path_factory, pixels):
    """A calibrated slide of two levels, 0.5 µm/px."""
    return write_slide(tmp_path_factory.mktemp("slides") / "a.svs", pixels, factors=(4,))


@pytest.fixture(scope="session")
def plain_slide_file(tmp_path_factory, pixels):
    """A tiled TIFF that states no size of its pixels."""
    return write_slide(tmp_path_factory.mktemp("slides") / "plain.tif", pixels, mpp=None)


@pytest.fixture
def viewer():
    """A viewer without Qt, with plugins discovered."""
    from napari.components import ViewerModel
    from npe2 import PluginManager

    PluginManager.instance().discover()
    return ViewerModel()


@pytest.fixture
def notifications():
    """What the user was told during a test."""
    from napari.utils.notifications import notification_manager

    before = len(notification_manager.records)

    def told():
        return [record.message for record in notification_manager.records[before:]]

    return told


@pytest.fixture
def plugin_preferences():
    """napari's plugin settings, as they were again afterwards."""
    from napari.settings import get_settings

    plugins = get_settings().plugins
    before = dict(plugins.extension2reader)
    yield plugins
    plugins.extension2reader = before
