"""What travels back from a worker: facts about one slide, never its pixels or its map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.cohort.distribution import Distribution
from napari_wsi_heatmap.errors import HeatmapError, StoreLockedError, one_line
from napari_wsi_heatmap.growing import boxes_of
from napari_wsi_heatmap.record import DONE, DONE_WITH_FAILURES, FAILED

if TYPE_CHECKING:
    from napari_wsi_heatmap.heatmap import Heatmap

FINISHED = (DONE, DONE_WITH_FAILURES)
ROWS = 256


@dataclass(frozen=True)
class SlideFacts:
    """What became of one slide.

    Attributes
    ----------
    slide : str
        Its name in the cohort.
    status : str
        done, done-with-failures or failed.
    windows, failed : int
        Windows that are done, and that could not be read.
    seconds : float
        From opening the slide to its last save; where it was done before, those of its record.
    prediction : str
        Of several outputs the one with the highest mean; of a MIL model the class.
    score : float or None
        That mean; the probability of that class.
    error : str
        Why it failed, in one line.
    computed : bool
        False where everything was there already.
    path, out, worker : str
        The slide, what was written, and which worker did it.
    values : dict
        Name of a channel -> `Distribution` of its cells.
    opening_s : float
        Seconds of `seconds` until the slide was open.
    notices : tuple of str
    locked : bool
        It failed because somebody else writes its output at the moment.
    detail : object
        What a pipeline wants to have back; small.
    """

    slide: str
    status: str
    windows: int = 0
    failed: int = 0
    seconds: float = 0.0
    prediction: str = ""
    score: float | None = None
    error: str = ""
    computed: bool = True
    path: str = ""
    out: str = ""
    worker: str = ""
    values: dict[str, Distribution] = field(default_factory=dict, repr=False)
    opening_s: float = 0.0
    notices: tuple[str, ...] = ()
    locked: bool = False
    detail: Any = field(default=None, repr=False)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do, but perhaps for windows that cannot be read."""
        return self.status in FINISHED


def facts_of(heatmap: Heatmap, slide: str, **more: Any) -> SlideFacts:
    """Facts of a heatmap that is finished."""
    counts = heatmap.run["counts"]
    values = distributions(heatmap)
    name, score = _prediction(values, heatmap)
    return SlideFacts(
        slide,
        heatmap.run["status"],
        windows=counts["done"],
        failed=counts["failed"],
        prediction=name,
        score=score,
        values=values,
        **more,
    )


def failed(slide: str, error: BaseException | str, **more: Any) -> SlideFacts:
    """Facts of a slide that could not be worked on."""
    locked = isinstance(error, StoreLockedError)
    return SlideFacts(slide, FAILED, error=told(error), locked=locked, **more)


def told(error: BaseException | str) -> str:
    """Why something failed, in one line."""
    if isinstance(error, (HeatmapError, str)):
        return one_line(error, 500)
    if isinstance(error, MemoryError):
        return "memory ran out - use fewer workers, or a smaller setting memory"
    return one_line(f"unexpected {type(error).__name__}: {error}", 400)


def distributions(heatmap: Heatmap) -> dict[str, Distribution]:
    """How the values of each channel are distributed over the cells of a map."""
    found: dict[str, Distribution] = {}
    for channel, name in enumerate(heatmap.names):
        found[name] = Distribution()
        for box in boxes_of(heatmap.frame.shape[1:], ROWS * 4):
            found[name].take(Distribution.of(np.asarray(heatmap.values[channel, *box])))
    return found


def _prediction(values: dict[str, Distribution], heatmap: Heatmap) -> tuple[str, float | None]:
    unsure = heatmap.run["model"].get("uncertainty", ())
    means = {name: d.mean for name, d in values.items() if d.count and name not in unsure}
    if not means:
        return "", None
    best = max(means, key=lambda name: means[name])
    return best, means[best]
