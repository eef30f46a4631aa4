"""What the commands do; each takes the parsed arguments and returns the exit code.

torch is imported by those that compute, napari by `view` and `demo`; `info` and `export` need
neither.
"""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.console import DONE, INTERRUPTED, SOME_FAILED, note, say
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.modelargs import output_settings
from napari_wsi_heatmap.report import all_notices, failed_line, not_finite_line, record_lines
from napari_wsi_heatmap.runfolder import is_store, read_record, reading, stores_in
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import AS_STORED

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from napari_wsi_heatmap.control import RunControl
    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.slides.base import Slide


def info(args: Namespace) -> int:
    """Say what a slide, or a heatmap, says about itself."""
    from napari_wsi_heatmap.describe import slide_facts, slide_lines

    stores = stores_of(Path(args.slide))
    if stores:
        return _info_of_runs(stores, as_json=args.json)
    with open_slide(args.slide) as slide:
        if args.json:
            say(json.dumps(slide_facts(slide), indent=1))
        else:
            for line in slide_lines(slide):
                say(line)
    return DONE


def _info_of_runs(paths: list[Path], *, as_json: bool) -> int:
    records = [read_record(path) for path in paths]
    if as_json:
        say(json.dumps(records if len(records) > 1 else records[0], indent=1))
        return DONE
    for path, record in zip(paths, records, strict=True):
        with reading(path, "the record of the run"):
            for line in list(record_lines(record)):
                say(line)
    return DONE


def stores_of(out: Path) -> list[Path]:
    """Outputs that a run of one or several models has left; empty if there is none."""
    return [out] if is_store(out) else stores_in(out)


def run(args: Namespace) -> int:
    """Run a model, or several, over a slide."""
    from napari_wsi_heatmap.launch import prepare

    model = args.model if len(args.model) > 1 else args.model[0]
    with open_slide(args.slide) as slide:
        model = _with_arch(model, args.arch)
        settings = output_settings(args) | args.settings
        if args.mil is not None:
            return _part("mil.fromcommand").run_with_mil(args, slide, model, settings)
        planned = prepare(slide, model, out=args.out, trust=args.trust, **settings)
        return finish(planned, quiet=args.quiet)


def _part(name: str) -> Any:
    return importlib.import_module(f"napari_wsi_heatmap.{name}")


def _with_arch(model: Any, arch: str | None) -> Any:
    """Load files of weights into their architecture; anything else is loaded by the run."""
    from napari_wsi_heatmap.models import load_model
    from napari_wsi_heatmap.models.files import is_weights

    if arch is None:
        return model
    if isinstance(model, list):
        return [load_model(one, arch=arch) if is_weights(one) else one for one in model]
    return load_model(model, arch=arch)


def resume(args: Namespace) -> int:
    """Continue a run that was stopped."""
    from napari_wsi_heatmap.launch import resume as planned_rest

    planned = planned_rest(args.out, again=args.failed, trust=args.trust)
    with planned.plan.slide:
        if "scored_by" in planned.record:
            return _part("mil.fromcommand").resume_with_mil(args, planned)
        return finish(planned, quiet=args.quiet)


def finish(run: Run, *, quiet: bool, complete: Callable[..., Any] | None = None) -> int:
    """Run to the end, or until Ctrl-C, and say how it ended.

    Parameters
    ----------
    complete : callable, optional
        ``complete(run, progress=...)`` iterates it; `launch.complete` by default.
    """
    from napari_wsi_heatmap import launch

    complete = complete or launch.complete
    records = [share.output.record for share in run.shares]
    known = all_notices(records)
    try:
        _note_all([*run.plan.slide.warnings, *known], quiet)
        with cancelled_by_ctrl_c(run.control):
            complete(run, progress=not quiet)
    finally:
        _note_all([notice for notice in all_notices(records) if notice not in known], quiet)
    _note_all(filter(None, [run.record["bottleneck"]]), quiet)
    return _report(run)


def _note_all(lines: Iterable[str], quiet: bool) -> None:
    for line in () if quiet else lines:
        note(line)


def _report(run: Run) -> int:
    """Say what became of each model, and how to go on with all of them."""
    several = len(run.shares) > 1
    ends = [
        (f"{share.name}: " if several else "", share.output.record["counts"], share.output.path)
        for share in run.shares
    ]
    out = run.out and (run.out.parent if several else run.out)
    again = f"napari-wsi-heatmap resume {shlex.quote(str(out))}"
    left = [who + _left_line(counts) for who, counts, _ in ends if counts["pending"]]
    _note_with(left, f"continue with: {again}")
    over = [end for end in ends if not end[1]["pending"]]
    failed = [who + failed_line(counts) for who, counts, _ in over if counts["failed"]]
    _note_with(failed, f"try them again with: {again} --failed")
    for who, counts, path in over:
        if counts["not_finite"]:
            note(who + not_finite_line(counts))
        where = shlex.quote(str(path))
        say(f"{where}: {counts['done']} windows done, {counts['failed']} failed")
    return INTERRUPTED if left else SOME_FAILED if failed else DONE


def _left_line(counts: Mapping[str, int]) -> str:
    return f"interrupted: {counts['done']} windows are saved, {counts['pending']} are left"


def _note_with(lines: list[str], what_to_do: str) -> None:
    """Note lines, and what to do about them: behind a single one, else once below them all."""
    if len(lines) == 1:
        lines = [f"{lines[0]}; {what_to_do}"]
    elif lines:
        lines = [*lines, what_to_do]
    for line in lines:
        note(line)


@contextmanager
def cancelled_by_ctrl_c(control: RunControl) -> Iterator[None]:
    """End the run at its next batch at the first Ctrl-C, at once at the second."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        control.cancel()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def export(args: Namespace) -> int:
    """Write a heatmap as a file of another format."""
    from napari_wsi_heatmap.exports.command import export as command

    return command(args)


def _computed_on(slide: Slide, record: dict[str, Any]) -> bool:
    """Whether a heatmap was computed on this slide, in whatever colours."""
    seen = open_slide(slide, icc=_converted(record))
    return seen.fingerprint == record["fingerprint"]


def _converted(record: dict[str, Any]) -> bool:
    return record.get("colours", AS_STORED) != AS_STORED


def view(args: Namespace) -> int:
    """Open a slide in napari, and its heatmaps."""
    from napari_wsi_heatmap.heatmap import open_heatmap
    from napari_wsi_heatmap.placedpictures import is_picture, place_picture

    require_display("without one, export the heatmap to a picture: export OUT.zarr FILE.png")
    outs = [] if args.out is None else stores_of(args.out) or [args.out]
    if args.side_by_side and not outs:
        raise HeatmapError("--side-by-side shows the slide beside its heatmap", do="give OUT, too")
    with open_slide(args.slide) as slide, ExitStack() as opened:
        pictures = [place_picture(out, slide) for out in outs if is_picture(out)]
        for picture in pictures:
            opened.callback(picture.close)
        heatmaps = [open_heatmap(out, slide) for out in outs if not is_picture(out)]
        records = [heatmap.run["slide"] for heatmap in heatmaps]
        for name in {record["name"] for record in records if not _computed_on(slide, record)}:
            note(f"the heatmap was computed on another slide, {name}")
        beside = {"pictures": pictures, "side_by_side": args.side_by_side}
        napari_part("view").view(slide, *heatmaps, **beside)
    return DONE


def gallery(args: Namespace) -> int:
    """Draw windows of a heatmap."""
    from napari_wsi_heatmap.inspecting.command import gallery as command

    return command(args)


def mil(args: Namespace) -> int:
    """Run the MIL pipeline of a configuration."""
    from napari_wsi_heatmap.mil.command import mil as command

    return command(args)


def cohort(args: Namespace) -> int:
    """Run a model, or a MIL pipeline, over many slides."""
    from napari_wsi_heatmap.cohort.command import cohort as command

    return command(args)


def demo(args: Namespace) -> int:
    """Show the sample slide and a builtin model, live."""
    from napari_wsi_heatmap import demo as shown

    if args.headless:
        return shown.headless(args.out, args.screenshot, quiet=args.quiet)
    require_display("demo --headless draws a picture without one")
    return shown.live(args.out, args.screenshot, quiet=args.quiet)


def require_display(do: str) -> None:
    """Refuse to begin what needs a window where there can be none: Qt would end the process."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in screens):
        raise HeatmapError("there is no display to open a window on", do=do)


def napari_part(name: str) -> Any:
    """Import a module of `_napari`; nothing else of the package does at import time."""
    try:
        return importlib.import_module(f"napari_wsi_heatmap._napari.{name}")
    except ImportError as error:
        raise HeatmapError(
            f"napari cannot be opened: {error}", do="pip install 'napari-wsi-heatmap[all]'"
        ) from error


def target_of(picture: Path | None) -> Path | None:
    """Check where a picture is to go, before anything is computed for it."""
    from napari_wsi_heatmap.exports import check_target, choose_format

    if picture is not None:
        choose_format(picture)
        check_target(picture)
    return picture
