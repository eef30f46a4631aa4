"""What may be typed about the command ``cohort``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.modelargs import add_outputs
from napari_wsi_heatmap.models import BUILTIN

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 10_000


def add_cohort(parser: argparse.ArgumentParser, *more: Callable[[Any], None]) -> None:
    """Add the arguments of ``cohort`` to its parser.

    Parameters
    ----------
    parser : ArgumentParser
    *more : callable
        Each adds those of a run to a group.
    """
    text = "a folder of slides, a .csv with a column 'slide' or 'path', or one slide"
    parser.add_argument("slides", nargs="?", metavar="SLIDES", help=text)
    task = parser.add_mutually_exclusive_group(required=True)
    text = f"one of {', '.join(BUILTIN)}, or a model file that all workers find"
    task.add_argument("--model", metavar="M", help=text)
    text = "run the MIL pipeline of this configuration, on its slides or on SLIDES"
    task.add_argument("--config", type=Path, metavar="YAML", help=text)
    parser.add_argument(
        "--arch", metavar="NAME", help="of the network, as timm calls it, for a file of weights"
    )
    text = "folder of the results; the same cohort is continued"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)
    parser.add_argument(
        "--failed", action="store_true", help="try windows again that could not be read"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no notes")
    _add_workers(parser.add_argument_group("workers"))
    add_outputs(parser.add_argument_group("what is drawn"))
    for add in more:
        add(parser.add_argument_group())


def _add_workers(group: Any) -> None:
    text = "how many (default: one a GPU, else one for two cores)"
    group.add_argument("--workers", type=_count, metavar="N", help=text)
    how = group.add_mutually_exclusive_group()
    how.add_argument("--threads", action="store_true", help="workers are threads of one process")
    how.add_argument(
        "--processes", action="store_true", help="workers are processes of this machine (default)"
    )
    text = "use a running dask scheduler, such as tcp://node:8786, and start no workers"
    group.add_argument("--scheduler", metavar="ADDRESS", help=text)
    text = "of dask's dashboard, on 127.0.0.1 (needs bokeh; default: a free one)"
    group.add_argument("--dashboard-port", type=_port, metavar="P", help=text)
    text = "row bands of a slide, a task each; auto: where there are fewer slides than workers"
    group.add_argument("--bands", type=_bands, default="auto", metavar="N|auto", help=text)


def _count(text: str) -> int:
    return _within(text, 1, MOST)


def _port(text: str) -> int:
    return _within(text, 1, 65535)


def _bands(text: str) -> int | str:
    return text if text == "auto" else _count(text)


def _within(text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdecimal() and low <= int(text[:9]) <= high):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number in {low}…{high}")
    return int(text)
