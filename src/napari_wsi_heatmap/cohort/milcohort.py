"""A MIL configuration over workers: the tables and the folders are those of the command ``mil``."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.cohort.slidelist import CohortSlide
from napari_wsi_heatmap.cohort.staff import Workplace, staffed
from napari_wsi_heatmap.cohort.table import SUMMARY, write_summary
from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.experiment import Experiment
from napari_wsi_heatmap.mil.results import write_failed, write_results
from napari_wsi_heatmap.mil.slidelist import Entry, entries_of
from napari_wsi_heatmap.runfolder import folder_of, writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_wsi_heatmap.cohort.campaign import Campaign
    from napari_wsi_heatmap.cohort.facts import SlideFacts
    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.models.trust import Trust

TABLES_S = 5.0


@dataclass(frozen=True)
class ConfigCohort:
    """A configuration, and its slides.

    Attributes
    ----------
    config : Config
    items : tuple of CohortSlide
    table : Path
        Where the summary will be, beside the pipeline's own results.csv.
    """

    config: Config
    items: tuple[CohortSlide, ...]
    table: Path


def config_of(path: Path, slides: Any = None, out: Any = None) -> ConfigCohort:
    """Read a configuration, with other slides or another output than it names.

    Parameters
    ----------
    path : Path
        YAML.
    slides : path, optional
        A folder, or a process list (.csv).
    out : path, optional
        Folder in which ``raw`` and ``production`` are made.

    Raises
    ------
    ConfigError
    """
    config = read_config(path)
    if slides is not None:
        given = folder_of(slides)
        is_list = given.suffix.lower() == ".csv"
        told: dict[str, Any] = {"process_list": str(given) if is_list else None}
        told |= {} if is_list else {"data_dir": [str(given)]}
        config = config.changed("data_arguments", **told)
    if out is not None:
        folder = folder_of(out)
        places = {"raw_save_dir": folder / "raw", "production_save_dir": folder / "production"}
        config = config.changed("exp_arguments", **{k: str(v) for k, v in places.items()})
    items = tuple(
        CohortSlide(entry.slide_id, str(entry.slide) if isinstance(entry, Entry) else "")
        for entry in entries_of(config)
    )
    return ConfigCohort(config, items, Experiment.of(config).production / SUMMARY)


def run_config(
    cohort: ConfigCohort,
    place: Workplace | None = None,
    *,
    trust: Trust = None,
    on_change: Any = None,
    **settings: Any,
) -> Iterator[SlideFacts]:
    """Work on all slides of a configuration; yield facts of each as it is finished.

    Parameters
    ----------
    cohort : ConfigCohort
        See `config_of`.
    place : Workplace, optional
        Default: processes of this machine.
    trust, on_change
        As for `run_cohort`.
    **settings
        Of `RunSettings`, for the encoder.

    Raises
    ------
    HeatmapError
        If no slide can be worked on.
    """
    from napari_wsi_heatmap.cohort.campaign import Campaign
    from napari_wsi_heatmap.cohort.milwork import ConfigRequest
    from napari_wsi_heatmap.cohort.plugin import mil_task

    place = place or Workplace()
    place.check()
    experiment = Experiment.of(cohort.config)
    expendable = place.processes or bool(place.scheduler)
    request = ConfigRequest(cohort.config, experiment.raw, settings, trust, expendable=expendable)
    with (
        _locked(experiment, cohort.config),
        staffed(place, request, len(cohort.items)) as (crew, key, _),
    ):
        campaign = Campaign(crew.client, key, cohort.items, 1, crew.resources, mil_task)
        if on_change is not None:
            campaign.on_change = lambda: on_change(campaign)
        yield from _with_tables(campaign, cohort, experiment)


def _with_tables(
    campaign: Campaign, cohort: ConfigCohort, experiment: Experiment
) -> Iterator[SlideFacts]:
    """Pass facts on, and keep the tables up to date, also if the iteration is given up."""
    found: dict[str, SlideFacts] = {}
    written = -math.inf
    try:
        for facts in campaign.outcomes():
            found[facts.slide] = facts
            if time.monotonic() - written >= TABLES_S:
                _write(cohort, experiment, found)
                written = time.monotonic()
            yield facts
    finally:
        _write(cohort, experiment, found)


def _write(cohort: ConfigCohort, experiment: Experiment, found: dict[str, SlideFacts]) -> None:
    rows: Sequence[SlideFacts] = [found[i.name] for i in cohort.items if i.name in found]
    write_summary(cohort.table, rows)
    write_results(experiment.results, [f.detail.result for f in rows if f.finished])
    write_failed(experiment.failed, {f.slide: f.error for f in rows if not f.finished})


@contextmanager
def _locked(experiment: Experiment, config: Config) -> Iterator[None]:
    """Keep other processes out of the experiment's folders."""
    for folder in (experiment.raw, experiment.production):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    lock = StoreLock(experiment.raw)
    try:
        with written_at_once(experiment.config) as part:
            part.write_bytes(config.content)
        yield
    finally:
        lock.release()
