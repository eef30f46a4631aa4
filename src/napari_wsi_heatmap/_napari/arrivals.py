"""Pixels that came late are drawn: often enough to be seen, seldom enough not to disturb."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet, ref

from napari_wsi_heatmap._napari.shown import gui_runs, in_viewers

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap.pyramid import Pyramid

REFRESH_MS = 60
"""ms that arrivals are gathered before the layer is drawn anew."""

_followed: WeakSet[Pyramid] = WeakSet()
_due: set[ref[Pyramid]] = set()
_lock = threading.Lock()


def refresh_on_arrival(pyramid: Pyramid) -> None:
    """Draw the layers of a pyramid anew when its progressive levels got pixels."""
    if pyramid not in _followed:
        _followed.add(pyramid)
        # The pyramid keeps its listeners: one that held the pyramid would keep it alive.
        pyramid.progressive.on_arrival(partial(_arrived, ref(pyramid)))


def _arrived(known: ref[Pyramid]) -> None:
    """Called from the thread that read."""
    with _lock:
        if known in _due or not gui_runs():
            return
        _due.add(known)
    from superqt.utils import ensure_main_thread

    ensure_main_thread(_draw_later)(known)


def _draw_later(known: ref[Pyramid]) -> None:
    from qtpy.QtCore import QTimer

    QTimer.singleShot(REFRESH_MS, partial(_draw, known))


def _draw(known: ref[Pyramid]) -> None:
    with _lock:
        _due.discard(known)
    in_viewers(_refresh, known)


def _refresh(viewer: ViewerModel, layer: Layer) -> None:
    layer.refresh(thumbnail=False, highlight=False, extent=False)
