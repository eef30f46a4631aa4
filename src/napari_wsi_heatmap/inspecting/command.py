"""The command ``gallery``: windows of a saved map as one picture."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.console import DONE, say
from napari_wsi_heatmap.exports.command import typed_output
from napari_wsi_heatmap.inspecting import WHICH

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable

    Whole = Callable[[str], int]


def add_gallery(parser: ArgumentParser, count: Whole, natural: Whole) -> None:
    """Say what may be typed.

    Parameters
    ----------
    count, natural : callable
        Types of whole numbers, from 1 and from 0.
    """
    parser.add_argument("out", type=Path, metavar="OUT.zarr")
    parser.add_argument("file", type=Path, metavar="FILE.png")
    parser.add_argument("--slide", help="where it lies now (default: where it lay then)")
    parser.add_argument("--which", choices=WHICH, default="top", help="(default: top)")
    parser.add_argument(
        "-n", type=count, default=16, metavar="N", help="how many windows (default: 16)"
    )
    parser.add_argument(
        "--seed", type=natural, default=0, metavar="N", help="of chance (default: 0)"
    )
    parser.add_argument("--output", metavar="NAME|N", help="of the model (default: the first)")
    parser.add_argument(
        "--apart", action="store_true", help="leave out windows that overlap one shown before"
    )


def gallery(args: Namespace) -> int:
    """Draw windows of a heatmap."""
    from napari_wsi_heatmap.heatmap import open_heatmap
    from napari_wsi_heatmap.inspecting.sheet import save_gallery

    heatmap = open_heatmap(args.out)
    written = save_gallery(
        heatmap,
        args.file,
        args.slide,
        n=args.n,
        which=args.which,
        seed=args.seed,
        channel=0 if args.output is None else typed_output(args.output, heatmap.names),
        apart=args.apart,
    )
    say(shlex.quote(str(written)))
    return DONE
