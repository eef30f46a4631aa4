"""Commands: let napari open slides with this plugin without asking, and take that back."""

from __future__ import annotations

from napari.settings import get_settings

from napari_wsi_heatmap._napari.notify import tell
from napari_wsi_heatmap.slides import SLIDE_EXTENSIONS

PLUGIN = "napari-wsi-heatmap"


def patterns() -> list[str]:
    """File name patterns of all slides; napari matches them by case where the system does."""
    endings = [f".{extension.lstrip('.').lower()}" for extension in SLIDE_EXTENSIONS]
    return [f"*{case}" for ending in endings for case in (ending, ending.upper())]


def make_default_reader() -> None:
    """Open every kind of slide with this plugin from now on."""
    plugins = get_settings().plugins
    plugins.extension2reader = plugins.extension2reader | dict.fromkeys(patterns(), PLUGIN)
    tell("Slides now open with WSI Heatmap at once (Preferences > Plugins lists the endings).")


def stop_default_reader() -> None:
    """Let napari ask again; what other plugins read stays as it is."""
    plugins = get_settings().plugins
    mine = set(patterns())
    plugins.extension2reader = {
        pattern: reader
        for pattern, reader in plugins.extension2reader.items()
        if not (pattern in mine and reader == PLUGIN)
    }
    tell("napari asks again which reader opens a slide.")
