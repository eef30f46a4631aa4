"""The command ``mil``: configurations run one after the other, a template, a process list."""

from __future__ import annotations

import logging
import traceback
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.console import DONE, FAILED, INTERRUPTED, SOME_FAILED, fail, note, say
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.mil.config import read_config
from napari_wsi_heatmap.mil.experiment import Experiment

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.mil.slidejob import Outcome

PACKAGE = "napari_wsi_heatmap"
CONFIGS = "heatmaps/configs"
"""Where CLAM looks for a configuration that is named alone."""


@dataclass
class Tally:
    """What became of the slides of one configuration."""

    done: int = 0
    unchanged: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Count one slide."""
        if outcome.result is None:
            self.failed[outcome.slide_id] = outcome.error
        elif outcome.computed:
            self.done += 1
        else:
            self.unchanged += 1

    @property
    def slides(self) -> int:
        """Number of slides."""
        return self.done + self.unchanged + len(self.failed)

    @property
    def code(self) -> int:
        """Exit code."""
        if not self.failed:
            return DONE
        return FAILED if len(self.failed) == self.slides else SOME_FAILED

    @property
    def line(self) -> str:
        """In one line."""
        parts = [f"{self.done} done", f"{self.unchanged} up to date", f"{len(self.failed)} failed"]
        return f"{self.slides} slide{'' if self.slides == 1 else 's'}: {', '.join(parts)}"


def mil(args: Namespace) -> int:
    """Do what the arguments ask for; returns the exit code."""
    with _logging(verbose=args.debug, quiet=args.quiet):
        if args.make_config is not None:
            from napari_wsi_heatmap.mil.template import make_config

            make_config(args.make_config)
            say(f"{args.make_config}: edit it, then: napari-wsi-heatmap mil --config FILE")
            return DONE
        if args.make_process_list is not None:
            return _make_list(args)
        return _run_all(args)


def _make_list(args: Namespace) -> int:
    from napari_wsi_heatmap.mil.configkinds import ending
    from napari_wsi_heatmap.mil.makelist import make_process_list

    slides, features, out = map(Path, args.make_process_list)
    count, without = make_process_list(slides, features, out, ending(args.slide_ext or [".svs"]))
    if without:
        note(f"{without} of them have no features in {features}")
    say(f"{out}: {count} slide{'' if count == 1 else 's'}")
    return DONE


def _run_all(args: Namespace) -> int:
    """Run all configurations; the worst exit code of them counts."""
    codes: list[int] = []
    seen: dict[Experiment, Path] = {}
    for path in args.config:
        try:
            codes.append(_run_one(_config(path, args), seen, args))
        except KeyboardInterrupt:
            note("interrupted; the same command goes on where it stopped")
            return INTERRUPTED
        except HeatmapError as error:
            if args.debug:
                logging.getLogger(PACKAGE).debug("the configuration failed", exc_info=error)
            fail(str(error))
            codes.append(FAILED)
    if set(codes) == {DONE}:
        return DONE
    return FAILED if set(codes) == {FAILED} else SOME_FAILED


def _config(path: Path, args: Namespace) -> Config:
    if not path.exists() and (Path(CONFIGS) / path).is_file():
        path = Path(CONFIGS) / path
    config = read_config(path)
    if args.save_exp_code is not None:
        config = config.changed("exp_arguments", save_exp_code=args.save_exp_code)
    if args.overlap is not None:
        config = config.changed("patching_arguments", overlap=args.overlap)
    return config


def _run_one(config: Config, seen: dict[Experiment, Path], args: Namespace) -> int:
    experiment = Experiment.of(config)
    if experiment in seen:
        what = f"{seen[experiment]} writes the same experiment"
        raise HeatmapError(what, config.path, "give each its own save_exp_code")
    seen[experiment] = config.path
    for notice in () if args.quiet else config.notices:
        note(f"{config.path.name}: {notice}")
    from napari_wsi_heatmap.mil.pipeline import run_config

    tally = Tally()
    outcomes = run_config(config, trust=args.trust, progress=not args.quiet, **args.settings)
    with closing(outcomes):
        for outcome in outcomes:
            tally.add(outcome)
            _tell(outcome, config, quiet=args.quiet)
    say(f"{experiment.results}: {tally.line}")
    return tally.code


def _tell(outcome: Outcome, config: Config, *, quiet: bool) -> None:
    """Say what became of one slide."""
    for notice in () if quiet else outcome.notices:
        note(f"{outcome.slide_id}: {notice}")
    if outcome.result is None:
        fail(f"{outcome.slide_id}: {outcome.error}")
        return
    result = outcome.result
    parts = [f"{result.bag_size:,} patch{'' if result.bag_size == 1 else 'es'}"]
    if result.prediction is not None:
        names = {number: name for name, number in (config.data["label_dict"] or {}).items()}
        name = names.get(result.prediction)
        share = result.probabilities[result.prediction]
        parts.append(f"class {result.prediction}{f' {name}' if name else ''} (p = {share:.3f})")
    parts += [] if outcome.computed else ["up to date"]
    if not quiet:
        say(f"{outcome.slide_id}: {', '.join(parts)}")


@contextmanager
def _logging(*, verbose: bool, quiet: bool) -> Iterator[None]:
    """Send what the package logs to stderr, line by line; all of it with --debug."""
    logger = logging.getLogger(PACKAGE)
    handler = _Notes(quiet=quiet and not verbose)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Notes(logging.Handler):
    """Writes what is logged as notes."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__()
        self._quiet = quiet

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message as one line."""
        if self._quiet:
            return
        where = "" if record.levelno >= logging.WARNING else f"{record.levelname.lower()}: "
        note(where + record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            traceback.print_exception(record.exc_info[1])
