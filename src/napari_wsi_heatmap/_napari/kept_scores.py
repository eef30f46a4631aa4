"""Values of the windows of a heatmap, kept while it is inspected: of dense maps they take time."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.inspecting.scores import Scores


class KeptScores:
    """Those of the heatmap that was asked for last, until more of its windows are done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: weakref.ref[Heatmap] | None = None
        self._done = 0
        self._scores: Scores | None = None

    def of(self, heatmap: Heatmap) -> Scores:
        """Scores of a heatmap as it is now; may be slow, for a thread."""
        from napari_wsi_heatmap.inspecting.scores import Scores

        done = int(np.count_nonzero(state_of(heatmap.state) == DONE))
        with self._lock:
            known = self._of and self._of()
            if self._scores is None or known is not heatmap or done != self._done:
                self._scores = Scores(heatmap)
                self._of, self._done = weakref.ref(heatmap), done
            return self._scores

    def clear(self) -> None:
        """Let go of them."""
        with self._lock:
            self._of, self._scores = None, None
