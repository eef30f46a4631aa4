"""An encoder and a MIL model in one live run: the map of attention that grows with the features.

The worker draws it: scores of one class as colours, and in windows that are missing what is
nearby. Colours are a function of all scores so far, so that it is drawn whole each time, and not
more often than a small share of the run's time allows.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np

from napari_wsi_heatmap._napari.colors import ValueSample
from napari_wsi_heatmap._napari.live_map import LiveMap, ModelMap
from napari_wsi_heatmap._napari.worker import RunTask
from napari_wsi_heatmap.frame import frame_to_json, lay_frame
from napari_wsi_heatmap.growing import empty_values
from napari_wsi_heatmap.heatmap import Heatmap, Piece
from napari_wsi_heatmap.mil.shown import drawn, limits
from napari_wsi_heatmap.rough import rough_map
from napari_wsi_heatmap.states import DONE, HANGS_OVER, PENDING, state_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap._napari.colors import Limits
    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.mil.live import MilPiece, MilRun
    from napari_wsi_heatmap.mil.result import MilResult
    from napari_wsi_heatmap.mil.sofar import SoFar
    from napari_wsi_heatmap.models.mil.model import MilModel

NAME: Final = "attention"
"""Of what is drawn, while it may still be drawn another way."""
DRAW_S: Final = 0.2
DRAW_SHARE: Final = 0.05
"""Of the worker's time, that drawing may take."""


class Drawn:
    """Values that are shown; the arrays stay the same, their content does not.

    Parameters
    ----------
    shape : (int, int)
    state : (Y, X) uint8
        Not copied.
    frame : MapFrame
    """

    def __init__(self, shape: tuple[int, int], state: Any, frame: Any) -> None:
        self.values = empty_values((1, *shape), "what is drawn")
        self.state, self.frame, self.version = state, frame, 0

    @property
    def pending(self) -> NDArray[np.bool_]:
        """(Y, X): windows still to compute."""
        return state_of(self.state) == PENDING


@final
class MilMap(LiveMap):
    """Attention of one class, drawn one way, as it is by now.

    Parameters
    ----------
    title : str
        Of the layer.
    mil_run : MilRun
    branch : int or None
        Class whose attention is drawn; None: the one that is predicted.
    how : str
        See `mil.display.to_display`.
    """

    def __init__(self, title: str, mil_run: MilRun, branch: int | None, how: str) -> None:
        # It draws by itself what a LiveMap makes of values.
        run, grid = mil_run.run, mil_run.run.plan.grid
        self._mil_run: MilRun | None = mil_run
        self._slide = run.plan.slide
        self._lock, self._next = threading.Lock(), 0.0
        self.branch, self.how = branch, how
        self.frame = lay_frame(grid, 1)
        state = run.growing.state
        self.growing = Drawn(grid.shape, state, self.frame)
        fills = rough_map(self._slide, self.frame, self.growing.values, state) is not None
        self._filled = Drawn(grid.shape, state, self.frame) if fills else self.growing
        self.heatmap = Heatmap(self.growing.values, state, self.frame, self._record())
        self.title, self.names, self.unit = title, self.heatmap.names, ""
        self.sample, self.limits, self.reasons = ValueSample(1), (0.0, 1.0), {}
        self.failed, self.rough, self.classes = deque(), None, None
        self.redraw()

    @property
    def shown(self) -> Drawn:
        """What to show until it is whole."""
        return self._filled

    @property
    def colours(self) -> Limits:
        """What the colours span."""
        return limits(self.growing.values, self.how)

    def take(self, piece: Any) -> None:
        """Draw what is new, if it is time to."""
        now = time.monotonic()
        if now >= self._next:
            self.redraw()
            took = time.monotonic() - now
            self._next = now + took + max(DRAW_S, took / DRAW_SHARE)

    def choose(self, branch: int | None, how: str) -> None:
        """Draw another class, or another way, from now on."""
        self.branch, self.how = branch, how

    def redraw(self) -> None:
        """Draw all scores there are; may take time, so not on the GUI thread."""
        with self._lock:
            run = self._mil_run
            if run is None or run.scores is None:
                return
            branch = min(self._branch(run), len(run.scores) - 1)
            np.copyto(self.growing.values[0], self._drawn(run, branch))
            if self._filled is not self.growing:
                self._fill()
                self._filled.version += 1
            self.growing.version += 1

    def _branch(self, run: MilRun) -> int:
        predicted = 0 if run.so_far is None else run.so_far.branch
        return predicted if self.branch is None else self.branch

    def _drawn(self, run: MilRun, branch: int) -> Any:
        assert run.scores is not None
        seen: Any = run.limits.of(branch)
        reference = run.reference.of(branch) if self.how == "percentile" else seen
        return drawn(run.scores[branch], self.how, reference)

    def _fill(self) -> None:
        """Let windows that are missing look like those nearby."""
        values, state = self.growing.values, self.growing.state.copy()
        unscored = (state_of(state) == DONE) & ~np.isfinite(values[0])
        state[unscored] &= np.uint8(HANGS_OVER)
        pending = (state_of(state) == PENDING).any()
        rough = rough_map(self._slide, self.frame, values, state) if pending else None
        np.copyto(self._filled.values, values if rough is None else rough.values)

    def _record(self) -> dict[str, Any]:
        assert self._mil_run is not None
        run, facts = self._mil_run, self._mil_run.mil.facts
        model = {
            **run.record["model"],
            "name": f"{facts.kind} attention",
            "sha256": run.mil.sha256,
            "names": [NAME],
            "unit": "",
            "limits": None,
        }
        mil = {"checkpoint": str(run.mil.path), "sha256": run.mil.sha256, "display": self.how}
        plan = {**run.record["plan"], "features": None}  # those are the encoder's heatmap's
        frame = frame_to_json(self.frame)
        return {**run.record, "plan": plan, "model": model, "mil": mil, "frame": frame}

    def end(self, run: Run) -> None:
        """Let the heatmap say how the run ended, and let go of it."""
        with self._lock:
            self.heatmap.run = self._record() | {"status": run.record["status"]}
            self._mil_run, self._slide = None, None


class MilTask(RunTask):
    """What a worker does: encode, score, draw.

    Attributes
    ----------
    mil_run : MilRun or None
        None until it is planned.
    mil_map : MilMap or None
    result : MilResult or None
        At the end.
    """

    def __init__(
        self,
        *args: Any,
        mil: MilModel,
        attention: str | None = None,
        branch: int | None = None,
        how: str = "percentile",
    ) -> None:
        super().__init__(*args)
        self._mil, self._attention = mil, attention
        self._branch, self._how = branch, how
        self.mil_run: MilRun | None = None
        self.mil_map: MilMap | None = None
        self.result: MilResult | None = None
        self.so_far: SoFar | None = None

    def _prepare(self, slide: Any) -> Run:
        from napari_wsi_heatmap.mil.from_slide import prepare_mil

        planned = prepare_mil(
            *(slide, self._model, self._mil),
            attention=self._attention,
            control=self.control,
            **self._settings,
        )
        title = f"{self._mil.path.stem}: attention"
        self.mil_map = MilMap(title, planned, self._branch, self._how)
        self.maps = [ModelMap(self._titles[0], planned.run, 0), self.mil_map]
        self.mil_run, self.run, self.progress = planned, planned.run, planned.run.progress
        return planned.run

    def _iterate(self, run: Run) -> None:
        assert self.mil_run is not None
        assert self.mil_map is not None
        try:
            with contextlib.closing(self.mil_run.pieces()) as pieces:
                for piece in pieces:
                    self._note(run, self._of_encoder(run, piece))
                    self.so_far = self.mil_run.so_far
        finally:
            self.progress, self.result = run.progress, self.mil_run.result
            self.mil_map.redraw()
        self.begun = self.begun or self.progress.done + self.progress.failed > 0

    def _of_encoder(self, run: Run, piece: MilPiece) -> Piece:
        """What the encoder's own map needs to know of a piece."""
        values = run.growing.values.reshape(run.growing.values.shape[0], -1)[:, piece.index].T
        share = run.shares[0]
        return Piece(values, piece.index, piece.positions, piece.state, share.name)

    def clear(self) -> None:
        """Let go of models, slide and maps, too."""
        super().clear()
        self.mil_run = self.mil_map = None
        self._mil = None  # type: ignore[assignment]
