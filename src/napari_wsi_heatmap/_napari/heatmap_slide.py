"""The slide of a heatmap that is on view: found on the GUI thread, opened and read in another."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap._napari.class_switch import heatmap_layer
from napari_wsi_heatmap._napari.meant import is_slide
from napari_wsi_heatmap._napari.registry import job_of
from napari_wsi_heatmap._napari.run_tissue import chosen_heatmap
from napari_wsi_heatmap._napari.slide_source import SlideSource, refusal, source_of
from napari_wsi_heatmap.inspecting.slide import open_recorded, slide_seen

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide


def heatmap_on_view(viewer: ViewerModel) -> Layer | None:
    """The heatmap's layer that is meant; what was made from one, such as its classes, counts."""
    return heatmap_layer(viewer) or chosen_heatmap(viewer)


def source_beside(viewer: ViewerModel, layer: Layer) -> SlideSource | None:
    """Where the pixels of a heatmap's slide come from; None if no layer here shows it."""
    job = job_of(layer)
    if job is not None and job.slide_layer in viewer.layers and refusal(job.slide_layer) is None:
        return source_of(job.slide_layer)
    path = layer.metadata["heatmap"].run["slide"]["path"]
    for other in viewer.layers:
        if is_slide(other) and other.metadata["slide"].path == path:
            return source_of(other)
    return None


class KeptSlide:
    """A slide that is opened once, and kept while windows of one heatmap are looked at.

    A slide that belongs to a layer stays the layer's.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: Any = None
        self._seen: Slide | None = None
        self._ours: Slide | None = None

    def get(self, heatmap: Heatmap, source: SlideSource | None) -> Slide:
        """The slide as the model saw it; slow, for a thread.

        Raises
        ------
        SlideError
            If it is not there, or is another one.
        """
        record = heatmap.run["slide"]
        key = record["fingerprint"], _place(source)
        with self._lock:
            if self._seen is None or key != self._key:
                self._open(heatmap, source)
                self._key = key
            assert self._seen is not None
            return self._seen

    def _open(self, heatmap: Heatmap, source: SlideSource | None) -> None:
        self._let_go()
        opened = open_recorded(heatmap) if source is None else source.open()
        ours = None if source is not None and opened is source.slide else opened
        try:
            self._seen = slide_seen(heatmap, opened)
        except Exception:
            if ours is not None:
                ours.close()
            raise
        self._ours = ours

    def _let_go(self) -> None:
        ours, self._ours, self._seen, self._key = self._ours, None, None, None
        if ours is not None:
            ours.close()

    def close(self) -> None:
        """Close it, if it was opened here; the next `get` opens it again."""
        # A read that hangs holds the lock: whoever folds a section must not wait for it.
        if self._lock.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._lock.release()


def _place(source: SlideSource | None) -> Any:
    if source is None:
        return None
    return source.path, id(source.slide), tuple(map(id, source.arrays))
