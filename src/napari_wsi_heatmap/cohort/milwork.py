"""One slide of a MIL configuration, in the process that works on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.cohort.facts import SlideFacts, failed
from napari_wsi_heatmap.cohort.held import Held
from napari_wsi_heatmap.cohort.request import Request
from napari_wsi_heatmap.cohort.slidework import caught
from napari_wsi_heatmap.cohort.trying import attempt
from napari_wsi_heatmap.mil.pipeline import Pipeline
from napari_wsi_heatmap.record import DONE
from napari_wsi_heatmap.slides.expendable import expendable_process

if TYPE_CHECKING:
    from napari_wsi_heatmap.cohort.slidelist import CohortSlide
    from napari_wsi_heatmap.mil.slidejob import Outcome


@dataclass(frozen=True)
class ConfigRequest(Request):
    """A configuration, as `model`, for all slides; `out` is the experiment's raw folder."""

    def holder(self) -> Any:
        """Class of what a worker holds."""
        return HeldPipeline


class HeldPipeline(Held):
    """A configuration's pipeline in a worker: its models are loaded once."""

    def _made(self) -> Pipeline:
        settings = dict(self.request.settings)
        device = str(settings.pop("device", "auto"))
        return Pipeline(self.request.model, self.request.trust, device, settings)


def work_on_entry(held: Held, item: CohortSlide) -> SlideFacts:
    """Work on one slide of the configuration; never raises for what is its own fault."""
    return caught(held, item, held.request.out, lambda: _worked_on(held, item))


def _worked_on(held: Held, item: CohortSlide) -> SlideFacts:
    begun, request = time.perf_counter(), held.request
    with (
        held.model() as pipeline,
        attempt(request.out, item.name) as died,
        expendable_process(request.expendable and not died),
    ):
        entry = next(one for one in pipeline.entries if one.slide_id == item.name)
        outcome = pipeline.outcome(entry)
    return _facts(outcome, held, item, time.perf_counter() - begun)


def _facts(outcome: Outcome, held: Held, item: CohortSlide, seconds: float) -> SlideFacts:
    where: dict[str, Any] = {"path": item.path, "worker": held.name, "seconds": seconds}
    where |= {"notices": outcome.notices, "out": str(held.request.out), "detail": outcome}
    result = outcome.result
    if result is None:
        return failed(item.name, outcome.error, **where)
    number = result.prediction
    return SlideFacts(
        item.name,
        DONE,
        windows=result.bag_size,
        prediction="" if number is None else str(number),
        score=None if number is None else result.probabilities[number],
        computed=bool(outcome.computed),
        **where,
    )
