"""What would keep the first run waiting, done in a thread when the dock opens.

Importing torch takes a second or more, and so does the first call of some of its functions.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from qtpy.QtCore import QCoreApplication
from superqt.utils import ensure_main_thread

from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap.models import BUILTIN

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class WarmUp:
    """Imports torch once, and finds out what can only be known with it.

    Attributes
    ----------
    devices : tuple of str
        Those to choose from; complete when `ready` is set.
    ready : threading.Event
    """

    def __init__(self) -> None:
        self.devices: tuple[str, ...] = ("auto", "cpu")
        self.ready = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waiting: list[Callable[[], None]] = []

    def start(self, then: Callable[[], None]) -> None:
        """Begin if nobody has; call ``then()`` on the GUI thread when it is done, or now."""
        with self._lock:
            if not self.ready.is_set():
                self._waiting.append(then)
                self._begin()
                return
        then()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="wsi-warm-up", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        try:
            self.devices = ("auto", "cpu", *_accelerators())
            for name in BUILTIN:
                MODELS.learn(name)
            _first_calls()
        except Exception:
            # A run will meet the same error, and say it where the user asked for something.
            logger.exception("warming up failed")
        with self._lock:
            self.ready.set()
            waiting, self._waiting = self._waiting, []
        for then in waiting:
            _on_gui_thread(then)


WARM_UP = WarmUp()


def _accelerators() -> list[str]:
    import torch

    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def _first_calls() -> None:
    """A run over a tiny slide: whatever is slow the first time has been done once."""
    import numpy as np

    from napari_wsi_heatmap.launch import compute_heatmap
    from napari_wsi_heatmap.slides.array import ArraySlide

    slide = ArraySlide([np.full((256, 256, 3), 200, np.uint8)], mpp=0.25, name="warm-up")
    compute_heatmap(slide, "hematoxylin", device="cpu", tissue="none", progress=False)


def _on_gui_thread(then: Callable[[], None]) -> None:
    if QCoreApplication.instance() is not None:
        ensure_main_thread(then)()
