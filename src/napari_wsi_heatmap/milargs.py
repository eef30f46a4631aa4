"""What may be typed about the command ``mil``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from napari_wsi_heatmap.mil.configkinds import WrongValueError, name, overlap
from napari_wsi_heatmap.modelargs import add_trust


def add_mil(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``mil`` to its parser."""
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument(
        "--config", "--config_file", action="append", type=Path, metavar="FILE.yaml",
        help="run it, in the manner of CLAM's or MIL-Lab's; given again, one after the other",
    )  # fmt: skip
    task.add_argument(
        "--make-config", type=Path, metavar="FILE", help="write a commented configuration to edit"
    )
    task.add_argument(
        "--make-process-list", nargs=3, metavar=("SLIDES", "FEATURES", "OUT.csv"),
        help="write a list of the slides of a folder and where their features lie",
    )  # fmt: skip
    parser.add_argument(
        "--slide-ext", action="append", metavar=".EXT",
        help="ending of slides for --make-process-list (default: .svs); may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--save-exp-code", "--save_exp_code", type=_checked(name), metavar="NAME",
        help="instead of exp_arguments.save_exp_code",
    )  # fmt: skip
    parser.add_argument(
        "--overlap", type=_checked(overlap), metavar="F",
        help="instead of patching_arguments.overlap",
    )  # fmt: skip
    parser.add_argument(
        "--device", default=argparse.SUPPRESS, metavar="NAME", help="auto, cpu, cuda:0, mps"
    )
    add_trust(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no notes")


def _checked(check: Any) -> Any:
    def convert(text: str) -> Any:
        try:
            return check(text)
        except WrongValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: give {error}") from error

    return convert
