"""Windows of a slide as thumbnails; a click moves the camera to one and outlines it.

Of any windows: those of a map, or those of a bag that a MIL model has scored.

>>> shown = WindowGallery(viewer, mark)
>>> read = lambda: window_pictures(slide, positions, size)      # called in a thread
>>> shown.show_windows(Level0(slide_layer), Windows(positions, size, texts), read)
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import Container
from psygnal import Signal
from superqt.utils import ensure_main_thread

from napari_wsi_heatmap._napari.fields import show_text, text_line
from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.latest import Latest
from napari_wsi_heatmap._napari.level0 import look_at
from napari_wsi_heatmap._napari.thumbnails import SIDE, Thumbnails
from napari_wsi_heatmap.inspecting.pictures import fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari.components import ViewerModel
    from numpy.typing import NDArray
    from qtpy.QtWidgets import QListWidgetItem

    from napari_wsi_heatmap._napari.level0 import Level0
    from napari_wsi_heatmap._napari.window_mark import WindowMark

    Read = Callable[[], Iterable[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Windows:
    """Windows to be shown."""

    positions: NDArray[np.float64]
    """(n, 2) top-left (y, x), level-0 pixels counted from the border."""
    size: tuple[float, float]
    """(height, width) of a window, level-0 pixels."""
    texts: Sequence[str]
    """Below each thumbnail, such as its value; short."""
    tips: Sequence[str] = ()
    """What is said of each under the mouse; by default its text."""


class WindowGallery(Container):
    """Thumbnails, read in a thread, and a line that says what stands in the way.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    mark : WindowMark
        Outlines the window that is chosen.

    Attributes
    ----------
    chosen : psygnal.Signal
        Emitted with the number of a window when somebody clicks its thumbnail.
    """

    chosen = Signal(int)

    def __init__(self, viewer: ViewerModel, mark: WindowMark) -> None:
        self._viewer, self._mark = weakref.ref(viewer), mark
        self._reading, self._gone = Latest("a gallery cannot be read"), False
        self._shown: tuple[Level0, Windows] | None = None
        self._thumbnails = Thumbnails()
        self._line = text_line("gallery_line")
        super().__init__(widgets=[self._line], labels=False)
        self.margins = (0, 0, 0, 0)
        self.native.layout().insertWidget(0, self._thumbnails)
        self._thumbnails.itemClicked.connect(self._on_item)
        self._thumbnails.itemActivated.connect(self._on_item)
        self.native.destroyed.connect(self._on_destroyed)
        show_text(self._line, "")

    @property
    def thumbnails(self) -> Thumbnails:
        """What shows them."""
        return self._thumbnails

    @property
    def line(self) -> str:
        """What stands in the way; empty if nothing does."""
        return str(self._line.tooltip or "")

    def show_windows(self, level0: Level0, windows: Windows, read: Read) -> None:
        """Show windows instead of those before.

        Parameters
        ----------
        level0 : Level0
            How level-0 pixels lie on a layer, over which a window is outlined.
        windows : Windows
        read : callable
            Gives their pictures (h, w, 3) uint8, in order; called in a thread. What it raises is
            told in a line.
        """
        self._shown = level0, windows
        self._thumbnails.show_texts(windows.texts, windows.tips)
        show_text(self._line, "")
        number = self._reading.number + 1
        self._reading.ask(lambda: self._read(number, read), lambda _: None, self.tell)

    def tell(self, line: str) -> None:
        """Say what stands in the way."""
        show_text(self._line, line)

    def clear(self) -> None:
        """Show nothing, and want nothing any more."""
        self._reading.drop()
        self._shown = None
        self._thumbnails.show_texts(())
        show_text(self._line, "")

    def _read(self, number: int, read: Read) -> None:
        """In a thread: hand over one picture after the other, as long as they are wanted."""
        for place, rgb in enumerate(read()):
            if not self._reading.wants(number):
                return
            self._arrived(number, place, fitted(rgb, 2 * SIDE))

    @ensure_main_thread
    @guarded
    def _arrived(self, number: int, place: int, rgb: Any) -> None:
        if not self._gone and self._reading.wants(number):
            self._thumbnails.put(place, rgb)

    @guarded
    def _on_item(self, item: QListWidgetItem) -> None:
        self.choose(self._thumbnails.row(item))

    def choose(self, number: int) -> None:
        """Look at a window, as by a click on its thumbnail."""
        viewer = self._viewer()
        if viewer is None or self._shown is None:
            return
        level0, windows = self._shown
        if level0.layer not in viewer.layers:
            self.tell(f"{level0.layer.name} is not in the viewer any more.")
            return
        corner = windows.positions[number]
        look_at(viewer, level0, corner, windows.size)
        self._mark.show(level0, corner, windows.size)
        self.chosen.emit(number)

    @guarded
    def _on_destroyed(self, *_: Any) -> None:
        self._gone = True
        self._reading.drop()
