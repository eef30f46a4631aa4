"""The MIL pipeline: a configuration -> scores, pictures and a table, slide by slide.

>>> for outcome in run_config(read_config("config.yaml")):
...     print(outcome.slide_id, outcome.error or outcome.result)

A slide that fails does not end the batch. What is up to date is not done again; see `sliderecord`.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import HeatmapError, StoreFullError, one_line
from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.mil.colours import colour_table
from napari_wsi_heatmap.mil.encoding import Encoding
from napari_wsi_heatmap.mil.experiment import Experiment
from napari_wsi_heatmap.mil.featuresources import FeatureFiles
from napari_wsi_heatmap.mil.leftovers import sweep_leftovers
from napari_wsi_heatmap.mil.results import write_failed, write_results
from napari_wsi_heatmap.mil.slidejob import Outcome, SlideJob, earlier_result
from napari_wsi_heatmap.mil.slidelist import Entry, Refused, entries_of
from napari_wsi_heatmap.mil.yamlfile import ConfigError
from napari_wsi_heatmap.models.mil import load_mil
from napari_wsi_heatmap.runfolder import writing

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.mil.experiment import SlidePaths
    from napari_wsi_heatmap.mil.results import Result
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.mil.model import MilModel
    from napari_wsi_heatmap.models.trust import Trust

_log = logging.getLogger(__name__)

TABLES_S = 5.0
"""Seconds between two writings of the tables, which hold all slides."""
MEMORY = (
    "memory ran out - choose a coarser visualisation level (a larger level number) or a larger "
    "custom_downsample"
)
CLAIMS = ("model_type", "in_dim", "attention_dim", "heads", "gated", "attention")
"""Keys of model_arguments that are held against the checkpoint."""


def run_config(
    config: Config,
    *,
    trust: Trust = None,
    device: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> Generator[Outcome, None, None]:
    """Work on all slides of a configuration.

    Parameters
    ----------
    config : Config
    trust : str, sequence of str or bool, optional
        Consent to an encoder that is code.
    device : str
    progress : bool
        Show a bar on stderr while a slide is encoded.
    **settings
        Of `RunSettings`, for the encoder.

    Yields
    ------
    Outcome
        One a slide, in the order of the list; results.csv is not older than `TABLES_S`, and up
        to date when the iteration ends, however it does.

    Raises
    ------
    HeatmapError
        If no slide can be worked on: the configuration, the list or the checkpoint is wrong, or
        the disk is full.
    """
    pipeline = Pipeline(config, trust, device, settings, progress=progress)
    with pipeline.locked():
        yield from pipeline.outcomes()


class Pipeline:
    """A configuration whose models are loaded and whose slides are listed.

    Slides may be worked on one after the other (`outcomes`), or each where there is room for it
    (`outcome`), the tables being kept in one place (`take`, `finish`).

    Parameters
    ----------
    config, trust, device, settings, progress
        As for `run_config`.

    Attributes
    ----------
    entries : list of Entry or Refused
    """

    def __init__(
        self,
        config: Config,
        trust: Trust,
        device: str,
        settings: dict[str, Any],
        *,
        progress: bool = False,
    ) -> None:
        colour_table(config.heatmap["cmap"])
        self._config, self._trust, self._progress = config, trust, progress
        self._settings = settings | {"device": device}
        self._experiment = Experiment.of(config)
        self.entries = entries_of(config)
        self._mil = _load(config, device)
        self._encoder: HeatmapModel | None = None
        if config.encodes and any(self._encoded(entry) for entry in self.entries):
            from napari_wsi_heatmap.mil.encodernames import load_encoder

            self._encoder = load_encoder(config, trust)
        self._results: list[Result] = []
        self._earlier: dict[str, Result] = {}
        self._failed: dict[str, str] = {}
        self._written = -math.inf
        _log.debug("%d slides, %r of %s", len(self.entries), self._mil, self._mil.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the experiment's folders."""
        for folder in (self._experiment.raw, self._experiment.production):
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
        lock = StoreLock(self._experiment.raw)
        try:
            for folder in (self._experiment.raw, self._experiment.production):
                sweep_leftovers(folder)
            with written_at_once(self._experiment.config) as part:
                part.write_bytes(self._config.content)
            yield
        finally:
            lock.release()

    def outcomes(self) -> Iterator[Outcome]:
        """Work on one slide after the other; until then the tables keep its earlier row."""
        self._earlier = self._earlier_results()
        try:
            for entry in self.entries:
                outcome = self.outcome(entry)
                self.take(outcome)
                yield outcome
        finally:
            self.finish()

    def take(self, outcome: Outcome) -> None:
        """Put what became of a slide into the tables."""
        self._earlier.pop(outcome.slide_id, None)
        if outcome.result is not None:
            self._results.append(outcome.result)
        else:
            self._failed[outcome.slide_id] = outcome.error
        self._write_tables(TABLES_S)

    def finish(self) -> None:
        """Bring the tables up to date."""
        self._write_tables()

    def _write_tables(self, every_s: float = 0.0) -> None:
        """Write the tables, unless that was done less than so many seconds ago."""
        now = time.monotonic()
        if now - self._written >= every_s:
            self._written = now
            rows = [*self._results, *self._earlier.values()]
            write_results(self._experiment.results, rows)
            write_failed(self._experiment.failed, self._failed)

    def outcome(self, entry: Entry | Refused) -> Outcome:
        """Work on one slide; why it fails is part of the outcome.

        Raises
        ------
        StoreFullError
            If nothing can be written any more.
        """
        if isinstance(entry, Refused):
            return Outcome(entry.slide_id, error=str(entry.error))
        try:
            return self._job(entry).run()
        except StoreFullError:
            raise  # the others would fail as well
        except Exception as error:  # noqa: BLE001 - whatever one slide meets, the others go on
            _log.debug("%s failed", entry.slide_id, exc_info=error)
            return Outcome(entry.slide_id, error=_told(error))

    def _earlier_results(self) -> dict[str, Result]:
        listed = [entry for entry in self.entries if isinstance(entry, Entry)]
        found = {
            entry.slide_id: earlier_result(self._paths(entry), self._mil.sha256) for entry in listed
        }
        return {slide_id: result for slide_id, result in found.items() if result is not None}

    def _paths(self, entry: Entry) -> SlidePaths:
        return self._experiment.slide(entry.label, entry.slide_id)

    def _job(self, entry: Entry) -> SlideJob:
        paths = self._paths(entry)
        source: FeatureFiles | Encoding = FeatureFiles(self._config, entry)
        if self._encoder is not None and self._encoded(entry):
            source = Encoding(
                *(self._config, entry, paths, self._encoder, self._settings),
                self._trust,
                self._progress,
            )
        return SlideJob(self._config, entry, paths, self._mil, source)

    def _encoded(self, entry: Entry | Refused) -> bool:
        """Whether features are made; a row that names files has them."""
        return self._config.encodes and not (isinstance(entry, Entry) and entry.features)


def _told(error: Exception) -> str:
    """Why a slide failed, in one line."""
    if isinstance(error, HeatmapError):
        return str(error)
    if isinstance(error, MemoryError):
        return MEMORY
    return one_line(f"unexpected {type(error).__name__}: {error}", 400)


def _load(config: Config, device: str) -> MilModel:
    classes = {
        where: section["n_classes"]
        for where, section in (
            ("model_arguments", config.model),
            ("exp_arguments", config.experiment),
        )
        if section["n_classes"] is not None
    }
    if len(set(classes.values())) > 1:
        told = ", ".join(f"{where} {number}" for where, number in classes.items())
        raise ConfigError(f"n_classes differs: {told}", config.path, "correct one of them")
    path = config.find(config.model["ckpt_path"], "ckpt_path")
    claims = {name: config.model[name] for name in CLAIMS}
    return load_mil(path, device=device, n_classes=next(iter(classes.values()), None), **claims)
