"""One slide of a cohort, in the process that works on it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.cohort.facts import FINISHED, SlideFacts, facts_of, failed
from napari_wsi_heatmap.cohort.trying import attempt
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.heatmap import open_heatmap
from napari_wsi_heatmap.launch import prepare
from napari_wsi_heatmap.recorded import recorded_backend
from napari_wsi_heatmap.runfolder import is_store, read_record
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.expendable import expendable_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_wsi_heatmap.cohort.held import Held
    from napari_wsi_heatmap.cohort.slidelist import CohortSlide
    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.slides.base import Slide


def work_on(held: Held, item: CohortSlide) -> SlideFacts:
    """Run the model over a slide, or what is left of it; never raises for what is its own fault."""
    out = held.request.output(item.name)
    return caught(held, item, out, lambda: _worked_on(held, item, out))


def caught(held: Held, item: CohortSlide, out: Path, work: Callable[[], SlideFacts]) -> SlideFacts:
    """Turn whatever a slide meets into facts: the others go on."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - one slide's error is no error of the cohort
        where = {"path": item.path, "out": str(out), "worker": held.name}
        return failed(item.name, error, **where)


def _worked_on(held: Held, item: CohortSlide, out: Path) -> SlideFacts:
    begun = time.perf_counter()
    with opened(held, item, out) as slide:
        opening_s = time.perf_counter() - begun
        more: dict[str, Any] = {"path": item.path, "out": str(out), "worker": held.name}
        more |= {"opening_s": opening_s, "notices": tuple(slide.warnings)}
        if not held.request.again and finished(out, slide):
            return facts_before(item.name, **more)
        run = run_to_end(held, slide, out)
        return facts_of(run.heatmap, item.name, seconds=time.perf_counter() - begun, **more)


@contextmanager
def opened(held: Held, item: CohortSlide, out: Path, part: str = "") -> Iterator[Slide]:
    """Open a slide; where a worker has died over it, or a part, a child process is asked first."""
    request = held.request
    with (
        attempt(request.out, item.name + part) as died,
        expendable_process(request.expendable and not died),
        open_slide(item.path, recorded_backend(out), mpp=item.mpp) as slide,
    ):
        yield slide


def finished(out: Path, slide: Slide) -> bool:
    """Whether an earlier session has worked on this very slide to its end."""
    if not is_store(out):
        return False
    record = read_record(out)
    return record["status"] in FINISHED and record["slide"]["fingerprint"] == slide.fingerprint


def facts_before(name: str, **more: Any) -> SlideFacts:
    """Facts of a slide that an earlier session has worked on to its end, in the store `out`."""
    heatmap = open_heatmap(more["out"])
    seconds = heatmap.run.get("seconds", {}).get("active", 0.0)
    return facts_of(heatmap, name, computed=False, seconds=seconds, **more)


def run_to_end(held: Held, slide: Slide, out: Path, **settings: Any) -> Run:
    """Plan a run, or the rest of one, and compute it."""
    with held.model() as model:
        settings = held.settings() | settings
        run = prepare(slide, model, out=out, again=held.request.again, **settings)
        held.note_batch_size(run.plan.batch_size)
        for _ in run.pieces():
            pass
    if run.record["status"] not in FINISHED:
        raise HeatmapError(f"it ended {run.record['status']}", out, "start the cohort again")
    return run
