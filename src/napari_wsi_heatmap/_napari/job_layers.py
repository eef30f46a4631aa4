"""All layers of a job: one of each model, and of two models one of what they differ by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

from napari_wsi_heatmap._napari.guarded import guarded
from napari_wsi_heatmap._napari.job_layer import STEP_MS, JobLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Image, Layer

    from napari_wsi_heatmap._napari.viewer_watch import ViewerWatch
    from napari_wsi_heatmap._napari.worker import RunTask
    from napari_wsi_heatmap.heatmap import Heatmap


class JobLayers:
    """Makes the layers of a run once it is planned; one of them is seen at first.

    Parameters
    ----------
    watch, slide_layer, metadata, in_dock
        As for `JobLayer`.
    changed : callable
        Called when another one may be seen.
    """

    def __init__(
        self,
        watch: ViewerWatch,
        slide_layer: Layer,
        metadata: dict[str, Any],
        in_dock: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self._watch, self._slide_layer = watch, slide_layer
        self._metadata, self._in_dock, self._changed = metadata, in_dock, changed
        self._each: list[JobLayer] = []
        self._models = 0

    @property
    def first(self) -> JobLayer | None:
        """That of the first model, None until the run is planned."""
        return self._each[0] if self._each else None

    @property
    def seen(self) -> JobLayer | None:
        """The topmost that is visible, else the first; None while there is nothing to show."""
        shown = [each for each in self._each if each.layer is not None]
        visible = [each for each in shown if each.layer.visible and each.there]
        return next(reversed(visible), next(iter(shown), None))

    @property
    def layers(self) -> tuple[Image, ...]:
        """Those of all models, then that of the difference; empty until they show something."""
        return tuple(each.layer for each in self._each if each.layer is not None)

    @property
    def heatmaps(self) -> list[Heatmap]:
        """What the models have computed; empty until there is something."""
        models = self._each[: self._models]
        return [each.heatmap for each in models if each.heatmap is not None]

    @property
    def channel(self) -> int:
        """Which channel is shown; set it to see another."""
        return 0 if self.first is None else self.first.channel

    @channel.setter
    def channel(self, channel: int) -> None:
        for each in self._each:
            if channel < len(each.names):
                each.channel = channel

    @property
    def rough(self) -> bool:
        """Whether windows that are missing look like others nearby."""
        return any(each.rough for each in self._each)

    def owns(self, layer: Layer) -> bool:
        """Whether a layer is one of these, shown already or not."""
        return any(each.owns(layer) for each in self._each)

    @property
    def there(self) -> bool:
        """Whether any of them is in the viewer, or still to be put there."""
        return any(each.there for each in self._each)

    @guarded
    def add(self, task: RunTask) -> None:
        """Make the layers of a run that is planned; then put them into the viewer, one by one."""
        self._make(task)
        QTimer.singleShot(STEP_MS, lambda: self._put(task, 0))

    def _make(self, task: RunTask) -> None:
        if self._each or task.run is None:
            return
        self._models = len(task.run.shares)
        # A difference is what two models are run together for.
        seen = self._models if len(task.maps) > self._models else 0
        self._each = [
            JobLayer(
                *(self._watch, self._slide_layer, live_map, self._metadata, self._in_dock),
                seen=number == seen,
            )
            for number, live_map in enumerate(task.maps)
        ]
        for each in self._each:
            each.on_visible(self._changed)

    def _put(self, task: RunTask, number: int) -> None:
        if number < len(self._each):
            self._each[number].put()
        if number + 1 < len(self._each):
            QTimer.singleShot(STEP_MS, lambda: self._put(task, number + 1))
        else:
            task.added.set()

    def draw(self) -> None:
        """Show the layers, or draw what is new in them; there must be something to show."""
        for each in self._each:
            each.draw()

    def finish(self, task: RunTask) -> None:
        """Show the last of them, and what the records say now; nothing, if there is nothing."""
        if task.begun:
            self._make(task)
            for each in self._each:
                each.put()
            self.draw()
        task.added.set()
        for each in self._each:
            each.finish(task.run)
