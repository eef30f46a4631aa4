"""One giant slide on several workers: row bands, each an output of its own, merged at the end.

Bands are cut along the chunks of the map, so that each of its chunks is made by one band alone,
and have the batch size of one plan: then what is merged has the bits of a run in one piece. A
dense map's windows that lie over a cut are computed on both sides of it. Tissue is looked for
once, and kept beside the bands.

Memory bound: that of a run, the whole map included.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_wsi_heatmap.cohort.cuts import cut_rows, state_of_band
from napari_wsi_heatmap.cohort.facts import SlideFacts, facts_of
from napari_wsi_heatmap.cohort.merging import fill_from
from napari_wsi_heatmap.cohort.slidework import caught, facts_before, finished, opened, work_on
from napari_wsi_heatmap.engine import Run
from napari_wsi_heatmap.errors import GridError, HeatmapError
from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.models.again import spec_of
from napari_wsi_heatmap.plan import plan_run
from napari_wsi_heatmap.runfolder import is_store, reading, writing
from napari_wsi_heatmap.selection import Selection
from napari_wsi_heatmap.settings import RunSettings
from napari_wsi_heatmap.share import Share
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import AS_STORED
from napari_wsi_heatmap.tissue import TissueMask

if TYPE_CHECKING:
    from napari_wsi_heatmap.cohort.cuts import Cut
    from napari_wsi_heatmap.cohort.held import Held
    from napari_wsi_heatmap.cohort.slidelist import CohortSlide
    from napari_wsi_heatmap.grid import WindowGrid
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.plan import Plan
    from napari_wsi_heatmap.slides.base import Slide

DIVISION, STATES = "bands.json", "state.npy"


@dataclass(frozen=True)
class Banding:
    """How a slide is divided; kept beside its bands, so that a later session has the same."""

    folder: str
    fingerprint: str
    batch_size: int
    cuts: tuple[Cut, ...]
    """(first, last) rows of cells."""
    tissue: dict[str, Any]

    def path(self, number: int) -> Path:
        """Output of a band."""
        first, last = self.cuts[number]
        return Path(self.folder) / f"{first:07d}-{last:07d}.zarr"

    def write(self, state: np.ndarray[Any, Any]) -> None:
        """Keep it, and the planned states (Y, X); the division last."""
        folder = Path(self.folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / STATES, state, allow_pickle=False)
        with written_at_once(folder / DIVISION) as part:
            part.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass(frozen=True)
class KnownWindows:
    """Which windows are computed, as an earlier plan has found out."""

    tissue: TissueMask
    selection: Selection

    @classmethod
    def of(cls, banding: Banding) -> KnownWindows:
        """Read what was kept."""
        folder = Path(banding.folder)
        with reading(folder, "the windows of the bands", "remove the folder"):
            state = np.load(folder / STATES, allow_pickle=False)
        return cls(TissueMask(None, record=banding.tissue), Selection(state))

    def windows_for(self, grid: WindowGrid, model: HeatmapModel) -> tuple[TissueMask, Selection]:
        """What `plan_run` asks a plan beside it for."""
        if self.selection.state.shape != grid.shape:
            what = f"{model.name!r} sees other windows than the bands were planned for"
            raise GridError(what, do="remove the folder of bands")
        return self.tissue, self.selection


def divide(held: Held, item: CohortSlide, parts: int) -> Banding | SlideFacts:
    """Plan a slide and divide it; work on it in one piece if it is too small for that.

    Returns
    -------
    Banding, or SlideFacts
        The facts if nothing is left to do.
    """
    out = held.request.output(item.name)
    answer: list[Banding] = []

    def work() -> SlideFacts:
        found = _divided(held, item, out, parts)
        if isinstance(found, Banding):
            answer.append(found)
            return SlideFacts(item.name, "")
        return found

    facts = caught(held, item, out, work)
    return answer[0] if answer else facts


def _divided(held: Held, item: CohortSlide, out: Path, parts: int) -> Banding | SlideFacts:
    folder = out.parent / f"{item.name}.bands"
    with opened(held, item, out) as slide:
        if not held.request.again and finished(out, slide):
            where = {"path": item.path, "out": str(out), "worker": held.name}
            return facts_before(item.name, **where)
        kept = _kept(folder, slide)
        if kept is None and not is_store(out):  # what was begun in one piece goes on so
            kept = _planned(held, slide, folder, parts)
    return work_on(held, item) if kept is None else kept


def _kept(folder: Path, slide: Slide) -> Banding | None:
    """The division of an earlier session."""
    if not (folder / DIVISION).is_file():
        return None
    with reading(folder, "the division", "remove the folder"):
        found = json.loads((folder / DIVISION).read_text(encoding="utf-8"))
        cuts = tuple((int(a), int(b)) for a, b in found.pop("cuts"))
        kept = Banding(**found | {"cuts": cuts, "folder": str(folder)})
    if kept.fingerprint != slide.fingerprint:
        raise HeatmapError("its bands are of another slide", folder, "remove the folder")
    return kept


def _planned(held: Held, slide: Slide, folder: Path, parts: int) -> Banding | None:
    with held.model() as model:
        plan = _plan(held, slide, model)
    cuts = cut_rows(plan.frame, plan.selection.state, parts)
    if len(cuts) < 2:
        return None
    banding = Banding(str(folder), slide.fingerprint, plan.batch_size, cuts, plan.tissue.record)
    banding.write(plan.selection.state)
    return banding


def _plan(held: Held, slide: Slide, model: HeatmapModel, banding: Banding | None = None) -> Plan:
    """Plan a slide, with the windows and the batch size of a division if there is one."""
    asked = RunSettings.of(held.settings())
    seen = open_slide(slide, icc=asked.icc)
    asked = replace(asked, icc=asked.icc or seen.colours != AS_STORED)
    if banding is None:
        return plan_run(seen, model, asked)
    asked = replace(asked, batch_size=banding.batch_size)
    return plan_run(seen, model, asked, beside=cast("Plan", KnownWindows.of(banding)))


def work_on_band(held: Held, item: CohortSlide, banding: Banding, number: int) -> SlideFacts:
    """Compute one band, or what is left of it."""
    out = banding.path(number)

    def work() -> SlideFacts:
        begun = time.perf_counter()
        with opened(held, item, out, f" {number}") as slide, held.model() as model:
            plan = _plan(held, slide, model, banding)
            state = state_of_band(plan.frame, plan.selection.state, banding.cuts[number])
            run = _run(replace(plan, selection=Selection(state)), out, model)
        counts = run.record["counts"]
        return SlideFacts(
            item.name,
            run.record["status"],
            counts["done"],
            counts["failed"],
            time.perf_counter() - begun,
            worker=held.name,
        )

    return caught(held, item, out, work)


def _run(plan: Plan, out: Path, model: HeatmapModel, *, again: bool = False) -> Run:
    share = Share(plan, out, spec_of(model), again=again)
    share.output.record["number"] = 0
    run = Run([share])
    for _ in run.pieces():
        pass
    return run


def merge(held: Held, item: CohortSlide, banding: Banding) -> SlideFacts:
    """Make one output of all bands; what a band lacks is computed here."""
    out = held.request.output(item.name)

    def work() -> SlideFacts:
        begun = time.perf_counter()
        with opened(held, item, out) as slide, held.model() as model:
            plan = _plan(held, slide, model, banding)
            bands = [(cut, banding.path(i)) for i, cut in enumerate(banding.cuts)]
            fill_from(bands, Share(plan, out, spec_of(model)))
            run = _run(plan, out, model, again=held.request.again)
        shutil.rmtree(banding.folder, ignore_errors=True)
        seconds = time.perf_counter() - begun
        where = {"path": item.path, "out": str(out), "worker": held.name}
        return facts_of(run.heatmap, item.name, seconds=seconds, **where)

    return caught(held, item, out, work)
