"""Where a slide is shown: the viewers and layers of a pyramid."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from weakref import WeakSet

from napari_wsi_heatmap._napari.guarded import guarded

if TYPE_CHECKING:
    from collections.abc import Callable
    from weakref import ref

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap.pyramid import Pyramid


also: WeakSet[ViewerModel] = WeakSet()
"""Panes that show slides without a window of their own: napari knows of none of them."""


def gui_runs() -> bool:
    """Whether there is a GUI; readers also serve scripts, where no Qt may be installed."""
    core = sys.modules.get("qtpy.QtCore")
    return core is not None and core.QCoreApplication.instance() is not None


@guarded
def in_viewers(act: Callable[[ViewerModel, Layer], None], known: ref[Pyramid]) -> None:
    """Call ``act(viewer, layer)`` for each layer that shows this pyramid, in any viewer."""
    # Where the layer went is not told to a reader, so all viewers are asked; napari has no
    # public list of them.
    from napari.viewer import Viewer

    pyramid = known()
    for viewer in [*getattr(Viewer, "_instances", ()), *also]:
        for layer in viewer.layers:
            if pyramid is not None and layer.metadata.get("pyramid") is pyramid:
                act(viewer, layer)
