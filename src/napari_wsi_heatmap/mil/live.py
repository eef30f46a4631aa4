"""A MIL run: the engine's pieces of an encoder, and what the MIL model says as they come.

Where a raw score depends on its patch alone (ABMIL, CLAM) the map of raw scores grows with the
features. Of other types the whole bag so far is scored again at growing intervals, as the slide's
prediction is for all types; `sofar` bounds what that costs. At the end the whole bag is scored at
once: that is the result, and the map is that of the result.

Memory bound: that of the engine's run, the features of the bag once (above 1 GB in a scratch
file), and what the MIL model takes for them.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_wsi_heatmap.errors import FeatureError, ModelRunError
from napari_wsi_heatmap.growing import empty_values
from napari_wsi_heatmap.mil.display import FrozenReference, GrowingLimits
from napari_wsi_heatmap.mil.kept import bag_of, kept_by
from napari_wsi_heatmap.mil.scoring import score_mil
from napari_wsi_heatmap.mil.sofar import GrowingBag, Intervals, SoFar
from napari_wsi_heatmap.states import DONE, PENDING, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.heatmap import Piece
    from napari_wsi_heatmap.mil.bags import SlideFeatures
    from napari_wsi_heatmap.mil.result import MilResult
    from napari_wsi_heatmap.models.mil.bag import Bag
    from napari_wsi_heatmap.models.mil.model import MilModel

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MilPiece:
    """Some windows that were encoded, and what the MIL model says by now.

    Attributes
    ----------
    index : (n,) int64
        Flat indices into the grid, or into the list of coordinates.
    positions : (n, 2) float64
        Top-left corners (y, x), level-0 pixels.
    state : (n,) uint8
    scores : (n, K) float32 or None
        Raw scores of these windows, NaN where there is none; None where a score depends on all
        patches.
    so_far : SoFar or None
        What the model says of the bag so far; the same object until it says so anew.
    rescored : (index (m,), scores (m, K)) or None
        Scores of all patches so far, where they have all been computed again.
    result : MilResult or None
        In the last piece of a run that came to its end; this piece has no windows.
    """

    index: Index
    positions: NDArray[np.float64]
    state: NDArray[np.uint8]
    scores: Values | None = None
    so_far: SoFar | None = None
    rescored: tuple[Index, Values] | None = None
    result: MilResult | None = None

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.index)


class MilRun:
    """An encoder's run with a MIL model beside it, to be iterated once; see `prepare_mil`.

    Attributes
    ----------
    run : Run
        The encoder's.
    mil : MilModel
    branch : int or None
        Class that was asked for.
    scores : (K, Y, X) float32 or None
        Raw scores as they are drawn, NaN where there are none; None before the first.
    limits : GrowingLimits
        Of the scores of each class so far.
    reference : FrozenReference
        What percentiles are taken of as the run goes on.
    version : int
        Grows with every change of `scores`; a viewer compares it to know whether to draw.
    so_far : SoFar or None
    result : MilResult or None
        At the end.
    """

    def __init__(
        self,
        run: Run,
        mil: MilModel,
        *,
        branch: int | None = None,
        attention: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run, self.mil, self.branch = run, mil, branch
        self.attention = mil.attention if attention is None else attention
        self.scores: Values | None = None
        self.limits, self.reference, self.version = GrowingLimits(), FrozenReference(), 0
        self.so_far: SoFar | None = None
        self.result: MilResult | None = None
        self._bag: GrowingBag | None = None
        self._clock = clock

    @property
    def patchwise(self) -> bool:
        """Whether the map of raw scores grows with every piece."""
        return self.mil.patchwise

    def pieces(self) -> Generator[MilPiece]:
        """Encode what is pending, and score.

        Ends without a result if the run was cancelled; what is encoded is kept in the store.
        """
        intervals = Intervals(self._clock)
        yield from self._begin(intervals)
        with closing(cast("Generator[Piece]", self.run.pieces())) as pieces:
            for piece in pieces:
                yield self._piece(piece, intervals)
        # As the run ends, and lets go of the lock: what is pending now stays so.
        if not self.run.growing.pending.any():
            self._bag = None
            yield self._ended(self._score_all())

    def _begin(self, intervals: Intervals) -> Iterator[MilPiece]:
        """Take what an earlier session has encoded."""
        state = state_of(self.run.growing.state)
        planned = int(np.count_nonzero((state == PENDING) | (state == DONE)))
        length = self.run.plan.dry.features
        assert length is not None
        self._bag = GrowingBag(planned, length)
        if (state == DONE).any() and (state == PENDING).any():
            try:
                earlier = bag_of(kept_by(self.run))
            except FeatureError:  # none of it can be used; what follows may be
                return
            assert earlier.index is not None
            scores = self._take(earlier.index, earlier.features)
            states = self.run.growing.state.ravel()[earlier.index]
            yield self._with_so_far(earlier.index, states, scores, intervals)

    def _piece(self, piece: Piece, intervals: Intervals) -> MilPiece:
        scores = None
        if piece.features is not None:
            finite = np.isfinite(piece.features).all(1)
            found = self._take(piece.index[finite], piece.features[finite])
            if found is not None:
                scores = np.full((len(piece), found.shape[1]), np.nan, np.float32)
                scores[finite] = found
        return self._with_so_far(piece.index, piece.state, scores, intervals)

    def _with_so_far(
        self, index: Index, state: NDArray[np.uint8], scores: Values | None, intervals: Intervals
    ) -> MilPiece:
        assert self._bag is not None
        rescored = None
        if intervals.due(number := len(self._bag)):
            try:
                with intervals.scoring(number):
                    rescored = self._score_so_far()
            except ModelRunError as error:
                # What is encoded is worth having; the end will say it again.
                intervals.stop()
                notice = f"no prediction so far any more: {error}"
                self.run.record["notices"] = [*self.run.record["notices"], notice]
        positions = self.run.plan.grid.positions(index)
        return MilPiece(index, positions, state, scores, self.so_far, rescored)

    def _take(self, index: Index, features: Values) -> Values | None:
        """Add patches (n, D) to the bag; their raw scores (n, K), where each has its own."""
        assert self._bag is not None
        if not len(index):
            return None
        self._bag.add(index, features)
        if not self.patchwise:
            return None
        scores = self.mil.patch_scores(features)
        self._draw(index, scores)
        self.limits.add(scores)
        self.reference.look(self._drawn(), len(self._bag))
        return scores

    def _score_so_far(self) -> tuple[Index, Values] | None:
        """Score the bag by now; the scores of all patches where they belong together."""
        assert self._bag is not None
        index, features = self._bag.index, self._bag.features
        if not self.patchwise:
            # The order of the patches matters to these, and the grid's is that of the result.
            order = np.argsort(index)
            index, features = index[order], features[order]
        bag = self.mil(features, branch=self.branch, attention=self.attention)
        self.so_far = self._said(bag)
        if self.patchwise:
            return None
        scores: Values = getattr(bag, bag.drawn)
        self._draw(index, scores)
        self._anew(scores)
        return index, scores

    def _said(self, bag: Bag) -> SoFar:
        state = state_of(self.run.growing.state)
        planned = int(np.count_nonzero((state == PENDING) | (state == DONE)))
        said = bag.logits, bag.probabilities, bag.prediction, bag.branch
        return SoFar(len(bag), planned, *said)

    def _draw(self, index: Index, scores: Values) -> None:
        shape = self.run.growing.state.shape
        if self.scores is None:
            self.scores = empty_values((scores.shape[1], *shape), "scores")
        self.scores.reshape(len(self.scores), -1)[:, index] = scores.T
        self.version += 1

    def _anew(self, scores: Values) -> None:
        """All scores have changed at once, and with them the limits."""
        self.limits.restart(scores)
        self.reference.restart(scores)

    def _drawn(self) -> Values:
        assert self.scores is not None
        whole: Values = self.scores.reshape(len(self.scores), -1).T
        return whole

    def features(self) -> SlideFeatures:
        """What is encoded by now; while the run goes on, what is saved of it.

        Raises
        ------
        FeatureError
            If nothing is.
        """
        return bag_of(kept_by(self.run), self.mil.facts.in_dim)

    def _score_all(self) -> MilResult:
        features = self.features()
        result = score_mil(
            features, self.mil, branch=self.branch, attention=self.attention, save=True
        )
        assert features.index is not None
        self.so_far, drawn = self._said(result.bag), getattr(result.bag, result.bag.drawn)
        if self.scores is not None:
            self.scores[:] = np.nan
        self._draw(features.index, drawn)
        self._anew(drawn)
        self.result = result
        return result

    def _ended(self, result: MilResult) -> MilPiece:
        assert result.index is not None
        nothing = np.zeros(0, np.int64)
        return MilPiece(
            nothing,
            np.zeros((0, 2)),
            np.zeros(0, np.uint8),
            None,
            self.so_far,
            (result.index, getattr(result.bag, result.bag.drawn)),
            result,
        )

    @property
    def out(self) -> Path | None:
        """The store."""
        return self.run.out

    @property
    def record(self) -> dict[str, Any]:
        """What is, or would be, in the store's ``run.json``."""
        return self.run.record
