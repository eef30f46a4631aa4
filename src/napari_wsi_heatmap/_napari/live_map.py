"""The maps of a run that the GUI shows: one of each model, and of two models their difference.

The worker keeps them up to date, piece by piece; the GUI only looks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, final

import numpy as np

from napari_wsi_heatmap._napari.colors import COLORMAP, OPACITY, SAMPLE, ValueSample
from napari_wsi_heatmap._napari.diverging import OPACITY as DIFFERENCE_OPACITY
from napari_wsi_heatmap._napari.diverging import SymmetricSample, diverging
from napari_wsi_heatmap.difference import Difference, difference_name
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.minus import described
from napari_wsi_heatmap.rough import rough_map
from napari_wsi_heatmap.states import DONE, FAILED, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_wsi_heatmap._napari.colors import Limits
    from napari_wsi_heatmap.classes import GrowingClasses
    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.growing import GrowingMap
    from napari_wsi_heatmap.heatmap import Heatmap, Piece
    from napari_wsi_heatmap.plan import Plan
    from napari_wsi_heatmap.rough import RoughMap


class LiveMap:
    """A map that grows, and what its layer needs to show it.

    It holds neither model nor slide: a layer keeps it.

    Parameters
    ----------
    title : str
        Of the layer.
    growing : GrowingMap or Difference
    heatmap : Heatmap
        Of the same arrays.
    sample : ValueSample
    plan : Plan
        Of the run; not kept.

    Attributes
    ----------
    shown : RoughMap, GrowingMap or Difference
        What to show: while windows are missing those nearby stand in for them.
    sample : ValueSample
        Of the values, for the limits of the colour map.
    limits : (float, float) or None
        Those that the model states.
    colormap : str or napari Colormap
    opacity : float
    failed : deque of (n,) int64
        Flat indices of windows that failed, to be taken out once they are shown. Of the first
        model alone: what cannot be read fails for all.
    reasons : dict
        Why they did.
    classes : GrowingClasses or None
        Most likely classes, to be kept up to date if somebody looks at them.
    """

    colormap: Any = COLORMAP
    opacity = OPACITY

    def __init__(
        self,
        title: str,
        growing: GrowingMap | Difference,
        heatmap: Heatmap,
        sample: ValueSample,
        plan: Plan,
    ) -> None:
        self.title, self.growing, self.heatmap, self.sample = title, growing, heatmap, sample
        self.names, self.frame = heatmap.names, growing.frame
        self.unit: str = heatmap.run["model"]["unit"]
        self.limits: Limits | None = None
        self.reasons: dict[int, str] = {}
        self.failed: deque[NDArray[np.int64]] = deque()
        self.rough: RoughMap | None = None
        self.classes: GrowingClasses | None = None
        if plan.settings.order == "viewport":
            self.rough = rough_map(plan.slide, growing.frame, growing.values, growing.state)
        if (state_of(growing.state) == DONE).any():
            sample.add(_some_of(growing.values[: sample.channels]))

    @property
    def shown(self) -> RoughMap | GrowingMap | Difference:
        """What to show until it is whole."""
        return self.rough or self.growing

    def take(self, piece: Piece) -> None:
        """Take note of windows that a model has put on its map."""
        raise NotImplementedError

    def end(self, run: Run) -> None:
        """Let the heatmap say how the run ended."""
        raise NotImplementedError

    def _show(self, index: NDArray[np.int64]) -> None:
        if self.rough is not None:
            self.rough.add(index)


@final
class ModelMap(LiveMap):
    """What one of the models of a run has computed."""

    def __init__(self, title: str, run: Run, number: int) -> None:
        share = run.shares[number]
        self._name, self._number = share.name, number
        # What the model gives; a channel that the map adds is looked at by itself.
        sample = ValueSample(share.plan.dry.channels)
        super().__init__(title, share.growing, share.heatmap, sample, share.plan)
        self.limits, self.reasons = share.plan.model.limits, share.output.failures
        self._note_failed(np.flatnonzero(state_of(share.growing.state) == FAILED))

    def take(self, piece: Piece) -> None:
        """Take note of windows, if they are this model's."""
        if piece.model == self._name:
            self.sample.add(piece.values)
            self._show(piece.index)
            if self.classes is not None:
                self.classes.add(piece.index)
            self._note_failed(piece.index[state_of(piece.state) == FAILED])

    def _note_failed(self, index: NDArray[np.int64]) -> None:
        if len(index) and self._number == 0:
            self.failed.append(index)

    def end(self, run: Run) -> None:
        """Let the heatmap say how the run ended."""
        self.heatmap.run = dict(run.shares[self._number].output.record)


@final
class DifferenceMap(LiveMap):
    """What two models of a run differ by.

    Raises
    ------
    HeatmapError
        If their outputs do not belong together, or there is no room for a third map.
    """

    opacity = DIFFERENCE_OPACITY

    def __init__(self, titles: tuple[str, str], run: Run) -> None:
        first, second = run.shares
        self._differing, self._titles = Difference(first.growing, second.growing), titles
        self.colormap = diverging()
        sample = SymmetricSample(self._differing.frame.channels)
        heatmap = self._described(run)
        super().__init__(difference_name(*titles), self._differing, heatmap, sample, first.plan)

    def _described(self, run: Run) -> Heatmap:
        first, second = run.heatmaps
        return described(first, second, self._differing.values, self._differing.state, self._titles)

    def take(self, piece: Piece) -> None:
        """Subtract windows of whichever model."""
        self._differing.update(piece.index)
        in_both = self._differing.of(piece.index)
        if len(in_both):
            self.sample.add(in_both)
        self._show(piece.index)

    def end(self, run: Run) -> None:
        """Let the heatmap say how the run ended."""
        self.heatmap.run = self._described(run).run


def live_maps(run: Run, titles: Sequence[str]) -> tuple[list[LiveMap], str]:
    """Make what is shown of a run that is planned.

    Parameters
    ----------
    run : Run
    titles : sequence of str
        What the models are called; their names in the run where these do not tell them apart.

    Returns
    -------
    maps : list of LiveMap
        One for each model; then, of two, one of their difference.
    why_not : str
        Why two models have no difference; else empty.
    """
    shares = run.shares
    called = titles if len(set(titles)) == len(shares) else [share.name for share in shares]
    maps: list[LiveMap] = [ModelMap(title, run, number) for number, title in enumerate(called)]
    if len(shares) != 2:
        return maps, ""
    try:
        return [*maps, DifferenceMap((called[0], called[1]), run)], ""
    except HeatmapError as error:
        return maps, f"no difference is shown: {error}"


def _some_of(values: Any) -> Any:
    """Up to `SAMPLE` cells (n, C) of a map (C, My, Mx) that an earlier run has saved."""
    channels = values.shape[0]
    finite = np.flatnonzero(np.isfinite(values[0]))
    chosen = finite[:: max(1, len(finite) // SAMPLE)]
    return values.reshape(channels, -1)[:, chosen].T
