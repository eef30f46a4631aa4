"""One line to the user, as a notification of napari's."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from napari.utils.notifications import show_error, show_info, show_warning

from napari_wsi_heatmap.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable


def tell_error(message: object) -> None:
    """Say what went wrong."""
    _tell(show_error, message)


def tell_warning(message: object) -> None:
    """Say what the user should know before trusting what is shown."""
    _tell(show_warning, message)


def tell(message: object) -> None:
    """Say what happened."""
    _tell(show_info, message)


def _tell(show: Callable[[str], None], message: object) -> None:
    text = one_line(message, limit=500)
    # Qt takes a text with a "<" for HTML and drops what it believes to be a tag. Escaped, it
    # takes it for HTML as well, and shows it as it was.
    show(html.escape(text, quote=False) if "<" in text else text)
