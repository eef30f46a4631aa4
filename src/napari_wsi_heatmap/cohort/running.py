"""A cohort from its beginning to its end.

>>> for slide in run_cohort("slides", "hematoxylin", out="results", workers=2):
...     print(slide.slide, slide.status, slide.windows, slide.score)
>>> cohort = compute_cohort("slides", "hematoxylin", out="results")
>>> cohort.limits["hematoxylin"]
(0.02, 0.71)
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.cohort.distribution import Distribution, added
from napari_wsi_heatmap.cohort.request import (
    Request,
    begin_folder,
    keep_request,
    refuse_other_settings,
)
from napari_wsi_heatmap.cohort.slidelist import list_slides
from napari_wsi_heatmap.cohort.staff import Workplace, staffed
from napari_wsi_heatmap.cohort.table import LIMITS, SUMMARY, write_limits, write_summary
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.runfolder import folder_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_wsi_heatmap.cohort.campaign import Campaign
    from napari_wsi_heatmap.cohort.cluster import Crew
    from napari_wsi_heatmap.cohort.facts import SlideFacts
    from napari_wsi_heatmap.cohort.slidelist import CohortSlide
    from napari_wsi_heatmap.models.trust import Trust

    PathLike = str | os.PathLike[str]

TABLES_S = 5.0
"""Seconds between two writings of the tables, which hold all slides."""


@dataclass
class CohortResult:
    """What became of a cohort.

    Attributes
    ----------
    slides : list of SlideFacts
        In the order of the list.
    out : Path
    values : dict
        Name of a channel -> `Distribution` over the maps of all slides.
    """

    slides: list[SlideFacts]
    out: Path
    values: dict[str, Distribution] = field(default_factory=dict)

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """Colour limits of each channel for all slides: the 1st and 99th percentile."""
        return {name: found.limits() for name, found in self.values.items() if found.count}

    @property
    def failed(self) -> dict[str, str]:
        """Slides without a result, and why."""
        return {facts.slide: facts.error for facts in self.slides if not facts.finished}

    def to_dataframe(self) -> Any:
        """The summary as a pandas DataFrame."""
        import pandas as pd

        from napari_wsi_heatmap.cohort.table import COLUMNS

        return pd.DataFrame([{c: getattr(f, c) for c in COLUMNS} for f in self.slides])


def run_cohort(
    slides: Any,
    model: Any,
    *,
    out: PathLike,
    workers: int | None = None,
    processes: bool = True,
    scheduler: str | None = None,
    dashboard_port: int | None = None,
    bands: int | str = "auto",
    again: bool = False,
    trust: Trust = None,
    arch: Any = None,
    on_crew: Callable[[Crew], None] | None = None,
    on_change: Callable[[Campaign], None] | None = None,
    **settings: Any,
) -> Iterator[SlideFacts]:
    """Run a model over many slides; yield facts of each as it is finished.

    Each slide's heatmap is ``OUT/<slide>.zarr``, as `run` writes it. Begun again with the same
    arguments, only what is not finished is done. A slide that fails does not end the cohort.

    Parameters
    ----------
    slides : path, or sequence of paths
        A folder, a .csv, or a list; see `list_slides`.
    model : str, nn.Module or callable
        As for `run`. A file must be found by the workers under the same path; an object is sent
        to each worker once.
    out : path
        Folder of the results, which all workers reach under the same path.
    workers : int, optional
        Processes (or threads) to start; by default one a GPU, else one for two cores.
    processes : bool
        False: threads of this process.
    scheduler : str, optional
        Address of a running dask scheduler; then no workers are started.
    dashboard_port : int, optional
        On the loopback interface.
    bands : int or "auto"
        Row bands into which a giant slide is divided, 1 for none. "auto": where there are fewer
        slides than workers, so many that all have something to do.
    again : bool
        Compute windows that failed in an earlier session once more.
    trust, arch
        As for `load_model`.
    on_crew : callable, optional
        Told of the workers when they are there.
    on_change : callable, optional
        Told of the queue when it has changed.
    **settings
        As for `run`.

    Yields
    ------
    SlideFacts

    Raises
    ------
    HeatmapError
        If no slide can be worked on: no slides, no workers, no such model, or a folder in which
        another cohort has been begun.

    Notes
    -----
    A script that calls this does so below ``if __name__ == "__main__":``, since processes are
    started that import it.
    """
    folder = folder_of(out)
    request = Request(model, folder, settings, trust, arch, again, processes or bool(scheduler))
    request.check()
    items = list_slides(slides)
    place = Workplace(workers, processes, scheduler, dashboard_port, on_crew)
    place.check()
    most = _most_tasks(len(items), bands)
    with _kept_to_ourselves(request), staffed(place, request, most) as (crew, key, sha256):
        keep_request(folder, request.identity(sha256))
        campaign = _campaign(crew, key, items, bands, on_change)
        yield from _with_tables(campaign.outcomes(), items, folder)


def compute_cohort(
    slides: Any, model: Any, *, out: PathLike, progress: bool = True, **more: Any
) -> CohortResult:
    """Run a model over many slides to the end.

    Parameters
    ----------
    slides, model, out, **more
        As for `run_cohort`.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    CohortResult
    """
    items = list_slides(slides)
    found: dict[str, SlideFacts] = {}
    values: dict[str, Distribution] = {}
    for facts in with_bar(run_cohort(items, model, out=out, **more), len(items), progress):
        found[facts.slide] = replace(facts, values={})
        values = added([values, facts.values])
    return CohortResult([found[item.name] for item in items], folder_of(out), values)


def with_bar(
    outcomes: Iterator[SlideFacts], total: int, progress: bool = True
) -> Iterator[SlideFacts]:
    """Pass facts on, with a bar on stderr that says how many slides have failed."""
    from tqdm import tqdm

    wrong = 0
    with tqdm(total=total, unit="slide", disable=not progress, delay=0.2) as bar:
        for facts in outcomes:
            wrong += not facts.finished
            bar.set_postfix({"failed": wrong} if wrong else {}, refresh=False)
            bar.update()
            yield facts


def _most_tasks(slides: int, bands: int | str) -> int | None:
    """How many tasks there can be at a time; None if that depends on the workers."""
    if bands == "auto":
        return None
    if not isinstance(bands, int) or isinstance(bands, bool) or bands < 1:
        raise HeatmapError(f"bands is {bands!r}", do="give a whole number, or 'auto'")
    return slides * bands


@contextmanager
def _kept_to_ourselves(request: Request) -> Iterator[None]:
    """Begin a folder, or continue it, and keep a second cohort out of it."""
    begin_folder(request.out)
    lock = StoreLock(request.out)
    try:
        refuse_other_settings(request)
        yield
    finally:
        lock.release()


def _campaign(
    crew: Crew,
    key: str,
    items: Sequence[CohortSlide],
    bands: int | str,
    on_change: Callable[[Campaign], None] | None,
) -> Campaign:
    from napari_wsi_heatmap.cohort.campaign import Campaign

    threads = sum(crew.threads.values())
    parts = bands if isinstance(bands, int) else -(-threads // len(items))
    campaign = Campaign(crew.client, key, items, parts, crew.resources)
    if on_change is not None:
        campaign.on_change = lambda: on_change(campaign)
    return campaign


def _with_tables(
    outcomes: Iterator[SlideFacts], items: Sequence[CohortSlide], folder: Path
) -> Iterator[SlideFacts]:
    """Pass facts on, and keep the tables up to date, also if the iteration is given up."""
    found: dict[str, SlideFacts] = {}
    values: dict[str, Distribution] = {}

    def write() -> None:
        write_summary(folder / SUMMARY, [found[i.name] for i in items if i.name in found])
        write_limits(folder / LIMITS, values, sum(f.finished for f in found.values()))

    written = -math.inf
    try:
        for facts in outcomes:
            found[facts.slide] = replace(facts, values={})  # these are kept together
            values = added([values, facts.values])
            if time.monotonic() - written >= TABLES_S:
                write()
                written = time.monotonic()
            yield facts
    finally:
        write()
