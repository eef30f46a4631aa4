"""The demo in a viewer: the sample slide, the dock, and a run that starts by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.view import show
from napari_wsi_heatmap.console import DONE, FAILED, INTERRUPTED, SOME_FAILED, fail, note
from napari_wsi_heatmap.exports import written_at_once
from napari_wsi_heatmap.show import show_heatmap
from napari_wsi_heatmap.slides import open_slide

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap._napari.job import HeatmapJob

SETTLE_MS = 1000
"""ms for the last paint before the window is photographed."""
FIT_MS = 300
SIZE = (1600, 1000)
"""(width, height) of the window, px, where the screen is large enough."""


def show_demo(path: Path, model: str, out: Path, picture: Path | None) -> int:
    """Open a viewer, run `model` live, return when the window is closed.

    Parameters
    ----------
    path : Path
        The slide.
    model : str
    out : Path
        The store.
    picture : Path, optional
        Where to save the window as PNG when the run is done; the window then closes itself.

    Returns
    -------
    int
        The exit code.
    """
    demo = Demo(path, model, out, picture)
    napari.run()
    return demo.exit_code


class Demo:
    """One viewer with one run.

    Attributes
    ----------
    viewer : napari.Viewer
    job : HeatmapJob
    """

    def __init__(self, path: Path, model: str, out: Path, picture: Path | None) -> None:
        self._picture, self._saved = picture, False
        self.viewer = napari.Viewer(title="napari-wsi-heatmap demo")
        room = QApplication.primaryScreen().availableSize()
        self.viewer.window.resize(min(SIZE[0], room.width()), min(SIZE[1], room.height()))
        self._dock()
        layer = show(self.viewer, open_slide(path))[0]
        self.job: HeatmapJob = show_heatmap(self.viewer, layer, model, out=out)
        self.job.changed.connect(self._look)
        # The canvas has its size only once the window is laid out.
        QTimer.singleShot(FIT_MS, self._fit)

    @guarded
    def _fit(self) -> None:
        self.viewer.reset_view()

    def _dock(self) -> None:
        # Imported here: the dock imports torch in a thread as soon as it is made.
        from napari_wsi_heatmap._napari.widget import HeatmapWidget

        dock = HeatmapWidget(self.viewer)
        self.viewer.window.add_dock_widget(dock, name="WSI Heatmap", area="right")

    def _look(self) -> None:
        """Photograph the window once the run is over, if that was asked for."""
        if self.job.over and self._picture is not None:
            self.job.changed.disconnect(self._look)
            QTimer.singleShot(SETTLE_MS, self._finish)

    @guarded
    def _finish(self) -> None:
        if self.job.error is None:
            self._save(self.viewer.screenshot(canvas_only=False, flash=False))
        self.viewer.close()

    def _save(self, pixels: Any) -> None:
        from PIL import Image

        assert self._picture is not None
        try:
            with written_at_once(self._picture) as part:
                Image.fromarray(np.asarray(pixels)[..., :3]).save(part, "PNG")
        except Exception as error:  # noqa: BLE001 - an exception in a slot ends the process
            fail(str(error))
        else:
            self._saved = True

    @property
    def exit_code(self) -> int:
        """How the demo ended, after its window was closed."""
        if self.job.error is not None:
            fail(str(self.job.error))
            return FAILED
        if self._picture is not None and not self._saved:
            note("the window was closed before the picture was taken")
            return INTERRUPTED
        heatmap = self.job.heatmap
        some_failed = heatmap is not None and heatmap.run["status"] == "done-with-failures"
        return SOME_FAILED if some_failed else DONE
