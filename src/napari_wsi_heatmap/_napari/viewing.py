"""How slides are shown: what the user set in the preferences, and what that means for a slide."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap._napari.notify import tell
from napari_wsi_heatmap.pyramid import default_cache
from napari_wsi_heatmap.readspeed import is_slow

if TYPE_CHECKING:
    from napari_wsi_heatmap.slides.base import Slide

logger = logging.getLogger(__name__)

PLUGIN = "napari-wsi-heatmap"
DEFAULTS = {"levels": "auto", "cache": default_cache.max_bytes >> 20}


def setting(name: str) -> Any:
    """Value of one of the plugin's settings under "Viewing slides", or its default."""
    try:
        from napari.settings import get_plugin_settings

        return getattr(get_plugin_settings(PLUGIN).viewing, name)
    # Older napari, a script without plugins, a settings file that cannot be read: none of these
    # may stop a slide from opening.
    except Exception as error:  # noqa: BLE001
        logger.debug("plugin settings not used: %s", error)
        return DEFAULTS[name]


def apply_cache_size() -> None:
    """Bound the tiles of all slides on view by the user's setting."""
    default_cache.resize(int(setting("cache")) << 20)


def shows_progressively(slide: Slide) -> bool:
    """Whether a slide's layer gets levels that answer at once; says so if nobody asked for it."""
    wanted = setting("levels")
    if wanted != "auto":
        return bool(wanted == "progressive")
    slow = is_slow(slide)
    if slow:
        tell(
            f"{slide.name} is slow to read: coarser pixels are shown until the right ones come. "
            "Scripts find the exact arrays in layer.metadata['pyramid'].levels."
        )
    return slow
