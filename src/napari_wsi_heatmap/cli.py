"""The command line: what may be typed, and how a command ends.

Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 3 done but some windows
could not be read, 130 interrupted and resumable.

Defaults and choices are those of `RunSettings`. Commands are in `napari_wsi_heatmap.commands`;
what they need is imported when they are called.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import sys
import traceback
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.blend import BLENDS
from napari_wsi_heatmap.cohortargs import add_cohort
from napari_wsi_heatmap.console import FAILED, INTERRUPTED, PIPE_CLOSED, fail, flush, note
from napari_wsi_heatmap.errors import GridError, HeatmapError, one_line
from napari_wsi_heatmap.exports.command import add_export
from napari_wsi_heatmap.grid import EDGES
from napari_wsi_heatmap.inspecting.command import add_gallery
from napari_wsi_heatmap.milargs import add_mil
from napari_wsi_heatmap.modelargs import add_model, add_outputs, add_trust
from napari_wsi_heatmap.order import ORDERS
from napari_wsi_heatmap.runfolder import RECORD
from napari_wsi_heatmap.settings import PRECISIONS, RESIZE_KINDS, RunSettings
from napari_wsi_heatmap.tissuerules.given import CHOICES

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "napari-wsi-heatmap"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: the arguments of the process.

    Returns
    -------
    int
        The exit code.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        args.settings = _settings(args)
    except GridError as error:
        parser.error(str(error))
    return _carry_out(args)


def _carry_out(args: argparse.Namespace) -> int:
    """Call the command and turn whatever it raises into a line and an exit code."""
    try:
        commands = importlib.import_module("napari_wsi_heatmap.commands")
        code: int = getattr(commands, args.command)(args)
        flush()
    except KeyboardInterrupt:
        note(f"interrupted{_how_to_go_on(args)}")
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last stop
        return _failed(error, debug=args.debug)
    return code


def _how_to_go_on(args: argparse.Namespace) -> str:
    out = vars(args).get("out")
    begun = out and any((*out.glob(RECORD), *out.glob(f"*/{RECORD}")))  # of several models each
    goes_on = begun and args.command in ("run", "resume", "demo")
    return f"; continue with: {PROGRAM} resume {shlex.quote(str(out))}" if goes_on else ""


def _failed(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, HeatmapError):
        fail(str(error))
    else:
        what = one_line(f"{type(error).__name__}: {error}", 400)
        fail(f"unexpected {what}" + ("" if debug else " (--debug shows where)"))
    return FAILED


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Settings that were given; whatever was not has the default of `RunSettings`."""
    names = [field.name for field in fields(RunSettings)]
    given = {name: value for name, value in vars(args).items() if name in names}
    RunSettings.of(given)
    return given


def make_parser() -> argparse.ArgumentParser:
    """Everything that may be typed."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Run a torch model over a whole-slide image and watch the heatmap grow.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with failed windows, "
        "130 interrupted and resumable.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_demo, _add_info, _add_run, _add_resume):
        add(commands)
    add_export(_add_command(commands, "export", "write a heatmap as a file of another format"))
    sheet = _add_command(commands, "gallery", "draw windows of a heatmap side by side, as PNG")
    add_gallery(sheet, _count, _natural)
    _add_view(commands)
    add_mil(_add_command(commands, "mil", "heatmaps of a MIL model over slides, by a YAML file"))
    cohort = _add_command(commands, "cohort", "many slides, on this machine's cores or a cluster")
    add_cohort(cohort, _add_windows, _add_choice_of_windows, _add_computing)
    return parser


def _add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    parser.set_defaults(command=name)
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error arose"
    )
    return parser


def _add_demo(commands: Any) -> None:
    parser = _add_command(commands, "demo", "a sample slide and a builtin model, live in napari")
    parser.add_argument("--headless", action="store_true", help="no window: needs no display")
    parser.add_argument(
        "--screenshot", type=Path, metavar="PNG", help="save a picture at the end, and exit"
    )
    _add_out(parser, required=False)
    _add_quiet(parser)


def _add_info(commands: Any) -> None:
    parser = _add_command(commands, "info", "what a slide, or a heatmap, says about itself")
    parser.add_argument("slide", metavar="SLIDE|OUT", help="or what a run has written")
    parser.add_argument("--json", action="store_true", help="for programs")


def _add_run(commands: Any) -> None:
    parser = _add_command(commands, "run", "run a model over a slide and save the heatmap")
    parser.add_argument("slide", metavar="SLIDE")
    add_model(parser)
    _add_out(parser, required=True)
    add_outputs(parser.add_argument_group("what is drawn"))
    _add_windows(parser.add_argument_group("windows"))
    _add_choice_of_windows(parser.add_argument_group("which windows are computed"))
    _add_computing(parser.add_argument_group("computing"))
    _add_quiet(parser)


def _add_resume(commands: Any) -> None:
    parser = _add_command(commands, "resume", "continue a run that was stopped")
    parser.add_argument("out", type=Path, metavar="OUT", help="what the run was to write")
    parser.add_argument(
        "--failed", action="store_true", help="try windows again that could not be read"
    )
    add_trust(parser)
    _add_quiet(parser)


def _add_view(commands: Any) -> None:
    parser = _add_command(commands, "view", "open a slide in napari, and its heatmaps")
    parser.add_argument("slide", metavar="SLIDE")
    text = "what a run has written, or was made of it: .zarr, .h5, .csv, .tiff, .png, …"
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help=text)
    parser.add_argument(
        "--side-by-side",
        action="store_true",
        help="show the slide alone beside it, too; both panes look at the same place",
    )


def _add_out(parser: argparse.ArgumentParser, *, required: bool) -> None:
    text = "OME-Zarr to write; one of the same run is continued"
    text += "; for several models a folder" if required else " (default: a temporary folder)"
    parser.add_argument("--out", type=Path, required=required, metavar="OUT.zarr", help=text)


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no notes")


def _add_windows(group: Any) -> None:
    _add_setting(group, "window", "what the model sees, px (default: the model's own)", _sides)
    _add_setting(group, "stride", "from one window to the next, px (default: the window)", _sides)
    where = group.add_mutually_exclusive_group()
    _add_setting(where, "mpp", "µm per pixel it sees them at (default: the model's own)", _positive)
    _add_setting(where, "level", "read this level as it is, without resizing", _natural)
    text = "the model sees sRGB by the file's ICC profile (default: colours as stored)"
    _add_setting(group, "icc", text, action="store_true")
    _add_setting(group, "edge", "windows at the far borders", choices=EDGES)
    _add_setting(group, "blend", "where the maps of windows overlap", choices=BLENDS)
    text = "of such maps also keep how far the windows differ there"
    _add_setting(group, "disagreement", text, action="store_true")


def _add_choice_of_windows(group: Any) -> None:
    _add_setting(group, "tissue", f"how tissue is found: {CHOICES}", metavar="RULE")
    _add_setting(group, "tissue_min", "share of a window that is tissue, or 'centre'", _tissue_min)
    _add_setting(group, "roi", "only windows whose centre lies in it, level-0 px", _roi)


def _add_computing(group: Any) -> None:
    _add_setting(group, "device", "auto, cpu, cuda:0, mps", metavar="NAME")
    _add_setting(group, "batch_size", "windows at once (default: what suits the model)", _count)
    _add_setting(group, "precision", "of the model's arithmetic", choices=PRECISIONS)
    _add_setting(group, "compile", "a slow start, then a faster model", action="store_true")
    _add_setting(group, "resize", "exact, or faster", choices=RESIZE_KINDS)
    _add_setting(group, "readers", "threads that read; 0 chooses", _natural)
    _add_setting(group, "memory", "MB for pixels that wait or are kept", _count, metavar="MB")
    _add_setting(group, "order", "which windows come first", choices=ORDERS)
    add_trust(group)


def _add_setting(group: Any, name: str, text: str, kind: Any = None, **details: Any) -> None:
    default = next(field.default for field in fields(RunSettings) if field.name == name)
    text += "" if default in (None, 0) else f" (default: {default})"
    if kind is not None:
        details = {"type": kind, "metavar": METAVARS[kind]} | details
    option = "--" + name.replace("_", "-")
    group.add_argument(option, dest=name, default=argparse.SUPPRESS, help=text, **details)


def _count(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _natural(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def _sides(text: str) -> int | tuple[int, int]:
    sides = [_count(side.strip()) for side in text.split(",")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is neither PX nor H,W")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _roi(text: str) -> tuple[float, float, float, float]:
    try:
        y0, x0, y1, x1 = (float(side) for side in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not Y0,X0,Y1,X1") from error
    if not (y0 < y1 and x0 < x1):
        raise argparse.ArgumentTypeError(f"{text!r} is empty: give Y0 < Y1 and X0 < X1")
    return y0, x0, y1, x1


def _tissue_min(text: str) -> float | str:
    if text == "centre":
        return text
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a share in 0…1 nor 'centre'")
    return share


METAVARS = {
    _sides: "PX|H,W", _positive: "F", _natural: "N", _count: "N",
    _tissue_min: "F|centre", _roi: "Y0,X0,Y1,X1",
}  # fmt: skip
