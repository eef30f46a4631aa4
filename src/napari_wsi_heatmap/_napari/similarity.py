"""Click on the slide: every window is coloured by how much it looks like the one that was clicked.

Unit vectors of all windows are held in memory while the tool is on, so that a click costs a
product of a matrix and a vector, in a thread. Of several clicks that come meanwhile the last
counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np
from napari.layers import Points

from napari_wsi_heatmap._napari.clicks import Clicks
from napari_wsi_heatmap._napari.failed_layer import put_beside
from napari_wsi_heatmap._napari.feature_layers import (
    FEATURES_OF,
    OnMap,
    follow,
    limits_of,
    put,
    title_of,
    values_layer,
)
from napari_wsi_heatmap._napari.latest import Latest
from napari_wsi_heatmap._napari.level0 import Level0
from napari_wsi_heatmap._napari.placement import placed_over
from napari_wsi_heatmap.embedding.cells import cells_of
from napari_wsi_heatmap.embedding.similarity import Similarity

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_wsi_heatmap.embedding.cells import WindowCells
    from napari_wsi_heatmap.heatmap import Heatmap

NEAREST = 10
"""Windows that are framed."""
CLICKED, LIKE_IT = "white", "magenta"
NO_WINDOW = "there is no window with features"


class Held(NamedTuple):
    """What is kept while the tool is on."""

    similarity: Similarity
    cells: WindowCells


class Answer(NamedTuple):
    """What a thread has found for a window."""

    pixels: NDArray[np.float32]
    """(My, Mx)."""
    limits: tuple[float, float]
    framed: NDArray[np.int64]
    """(1 + k,) flat indices: the window itself, then the most similar first."""
    least: float
    """Similarity of the last of these."""


class SimilarityTool:
    """Answers clicks on the slide until it is switched off.

    Parameters
    ----------
    viewer : ViewerModel
        Not kept alive.
    of : Layer
        Of a heatmap with features.
    say : callable
        Gets what is told, a line.

    Attributes
    ----------
    layer : Image or None
        None until the first click is answered.
    frames : Points or None
        Around the window that was clicked, and those most like it.
    """

    def __init__(self, viewer: ViewerModel, of: Layer, say: Callable[[str], None]) -> None:
        self._viewer, self._of, self._say = ref(viewer), of, say
        self._heatmap: Heatmap = of.metadata["heatmap"]
        self._clicks = Clicks(viewer, self._on_click)
        self._latest = Latest(f"{title_of(of)}: windows cannot be compared")
        self._held: Held | None = None
        self._limits: tuple[float, float] | None = None
        self.layer: Image | None = None
        self.frames: Points | None = None

    @property
    def there(self) -> bool:
        """Whether the heatmap's layer is still in the viewer."""
        viewer = self._viewer()
        return viewer is not None and self._of in viewer.layers

    def begin(self) -> None:
        """Gather the features, in a thread; clicks are taken from now on."""
        self._clicks.listen(True)
        self._say("reading the features…")
        self._latest.ask(self._gathered, self._on_gathered, self._say)

    def end(self) -> None:
        """Answer no more clicks, and let go of the features; what is shown stays."""
        self._clicks.listen(False)
        self._latest.drop()
        self._held = None

    def _gathered(self) -> Held:
        """What is kept, read once; for the thread, of which there is one at a time."""
        if self._held is None:
            self._held = Held(Similarity(self._heatmap), cells_of(self._heatmap))
        return self._held

    def _on_gathered(self, held: Held) -> None:
        self._say(f"click on the slide: {held.similarity.windows:,} windows are compared")

    def _on_click(self, position: Any) -> None:
        viewer = self._viewer()
        if viewer is not None and self.there:
            point = Level0.of_heatmap(self._of).at(viewer, position)
            self._latest.ask(lambda: self._answer(*point), self._on_answer, self._say)

    def _answer(self, y: float, x: float) -> Answer | None:
        """Compare with the window at a level-0 pixel; None where there is none."""
        similarity, cells = self._gathered()
        window = cells.window_at(y, x)
        if window is None or not similarity.has(window):
            return None
        found, nearest, cosines = similarity.both(window, NEAREST)
        least = float(cosines[-1]) if len(cosines) else 1.0
        framed = np.concatenate([[window], nearest])
        return Answer(cells.paint(found), limits_of(found), framed, least)

    def _on_answer(self, answer: Answer | None) -> None:
        viewer = self._viewer()
        if viewer is None or not self.there:
            return
        if answer is None:
            self._say(NO_WINDOW)
            return
        self._show(viewer, answer)
        self._frame(viewer, answer)
        like = f"the {len(answer.framed) - 1} most similar (cosine ≥ {answer.least:.3f})"
        self._say(f"framed: the window that was clicked, and {like}")

    def _show(self, viewer: ViewerModel, answer: Answer) -> None:
        if self.layer is None or self.layer not in viewer.layers:
            assert self._held is not None
            title = f"{title_of(self._of)}: similarity"
            self.layer = values_layer(
                self._of, self._held.cells, title, answer.pixels, answer.limits
            )
            put(viewer, self._of, self.layer)
        else:
            self.layer.data = answer.pixels
            if tuple(self.layer.contrast_limits) == self._limits:  # not chosen by the user
                self.layer.contrast_limits = answer.limits
        self._limits = answer.limits

    def _frame(self, viewer: ViewerModel, answer: Answer) -> None:
        """Frame the window that was clicked, and those most like it."""
        half = (np.asarray(self._heatmap.window_size) - 1) / 2
        centres = self._heatmap.grid.positions(answer.framed) + half
        if self.frames is None or self.frames not in viewer.layers:
            self.frames = frames_layer(self._of, centres)
            put_beside(viewer, self.frames)
        else:
            self.frames.data = centres
            self.frames.border_color = _colors(len(centres))


def frames_layer(of: Layer, centres: NDArray[np.float64]) -> Points:
    """Squares around windows, the first in another colour.

    Parameters
    ----------
    of : Layer
        Of the heatmap.
    centres : (n, 2)
        Of the windows, level-0 pixels.
    """
    heatmap: Heatmap = of.metadata["heatmap"]
    scale = np.asarray(heatmap.frame.scale)
    where = OnMap(-np.asarray(heatmap.frame.offset) / scale, 1 / scale)
    layer = Points(
        centres,
        name=f"{title_of(of)}: most similar",
        symbol="square",
        size=max(heatmap.window_size),
        face_color="transparent",
        border_color=_colors(len(centres)),
        border_width=0.1,
        axis_labels=of.axis_labels,
        metadata={FEATURES_OF: heatmap, "job": None},
        **placed_over(of, where),
    )
    follow(layer, of, where)
    return layer


def _colors(n: int) -> list[str]:
    return [CLICKED] + [LIKE_IT] * (n - 1)
