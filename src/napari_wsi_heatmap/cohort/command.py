"""The command ``cohort``."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.cohort.running import run_cohort, with_bar
from napari_wsi_heatmap.cohort.slidelist import list_slides
from napari_wsi_heatmap.cohort.staff import Workplace
from napari_wsi_heatmap.cohort.table import SUMMARY
from napari_wsi_heatmap.console import DONE, FAILED, INTERRUPTED, SOME_FAILED, fail, note, say
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.modelargs import output_settings

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from pathlib import Path

    from napari_wsi_heatmap.cohort.cluster import Crew
    from napari_wsi_heatmap.cohort.facts import SlideFacts


@dataclass
class Tally:
    """What became of the slides."""

    done: int = 0
    unchanged: int = 0
    failed: int = 0
    windows: int = 0

    def add(self, facts: SlideFacts) -> None:
        """Count one slide."""
        if not facts.finished:
            self.failed += 1
        elif facts.computed:
            self.done += 1
        else:
            self.unchanged += 1
        self.windows += facts.failed

    @property
    def code(self) -> int:
        """Exit code."""
        if not self.failed:
            return SOME_FAILED if self.windows else DONE
        return SOME_FAILED if self.done or self.unchanged else FAILED

    @property
    def line(self) -> str:
        """In one line."""
        number = self.done + self.unchanged + self.failed
        parts = [f"{self.done} done", f"{self.unchanged} up to date", f"{self.failed} failed"]
        parts += [f"{self.windows} windows could not be read"] if self.windows else []
        return f"{number} slide{'' if number == 1 else 's'}: {', '.join(parts)}"


def cohort(args: Namespace) -> int:
    """Run a model, or a MIL pipeline, over many slides."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    tally, (outcomes, total, table) = Tally(), _begun(args)
    try:
        for facts in with_bar(outcomes, total, progress=not args.quiet):
            tally.add(facts)
            _tell(facts, quiet=args.quiet)
    except KeyboardInterrupt:
        note("interrupted; the same command goes on where it stopped")
        return INTERRUPTED
    say(f"{table}: {tally.line}")
    return tally.code


def _begun(args: Namespace) -> tuple[Iterator[SlideFacts], int, Path]:
    """Facts to come, of how many slides, and where their table will be."""
    place = Workplace(
        args.workers,
        not args.threads,
        args.scheduler,
        args.dashboard_port,
        None if args.quiet else _tell_crew,
    )
    return _of_config(args, place) if args.config is not None else _of_model(args, place)


def _of_config(args: Namespace, place: Workplace) -> tuple[Iterator[SlideFacts], int, Path]:
    from napari_wsi_heatmap.cohort.milcohort import config_of, run_config

    found = config_of(args.config, args.slides, args.out)
    for notice in () if args.quiet else found.config.notices:
        note(f"{args.config.name}: {notice}")
    outcomes = run_config(found, place, trust=args.trust, **args.settings)
    return outcomes, len(found.items), found.table


def _of_model(args: Namespace, place: Workplace) -> tuple[Iterator[SlideFacts], int, Path]:
    for name, value in (("SLIDES", args.slides), ("--out DIR", args.out)):
        if value is None:
            raise HeatmapError(f"--model needs {name}", do="give it")
    items = list_slides(args.slides)
    more = vars(place) | {"bands": args.bands, "again": args.failed, "trust": args.trust}
    more |= {"arch": args.arch} | output_settings(args) | args.settings
    return run_cohort(items, args.model, out=args.out, **more), len(items), args.out / SUMMARY


def _tell_crew(crew: Crew) -> None:
    _above_bar(note, crew.line)


def _tell(facts: SlideFacts, *, quiet: bool) -> None:
    for notice in () if quiet else facts.notices:
        _above_bar(note, f"{facts.slide}: {notice}")
    if not facts.finished:
        _above_bar(fail, f"{facts.slide}: {facts.error}")


def _above_bar(write: Any, line: str) -> None:
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        write(line)
