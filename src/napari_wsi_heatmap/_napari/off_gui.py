"""Slow work in a thread, and what follows from it on the GUI thread."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from superqt.utils import ensure_main_thread

from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.notify import tell_warning
from napari_wsi_heatmap.errors import HeatmapError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def off_gui(work: Callable[[], Any], then: Callable[[Any], None], failing: str) -> None:
    """Call ``work()`` in a thread, then ``then(result)`` on the GUI thread.

    Parameters
    ----------
    failing : str
        Begin of the one line that is told if `work` raises: what cannot be done.
    """

    def worker() -> None:
        try:
            result = work()
        # What reads a file may raise anything; all that must follow is a line for the user.
        except Exception as error:
            logger.info("%s", failing, exc_info=True)
            _on_gui(tell_warning, f"{failing}: {_in_words(error)}")
        else:
            _on_gui(then, result)

    threading.Thread(target=worker, name="off-gui", daemon=True).start()


@ensure_main_thread
def _on_gui(act: Callable[[Any], None], value: Any) -> None:
    guarded(act)(value)


def _in_words(error: Exception) -> str:
    if isinstance(error, HeatmapError):
        return str(error)
    return one_line(f"unexpected {type(error).__name__}: {error}", 200)
