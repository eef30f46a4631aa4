"""What may be typed on the command line about models."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.models import BUILTIN
from napari_wsi_heatmap.models.settings import ACTIVATIONS, OF_RUN, TTA

if TYPE_CHECKING:
    from napari_wsi_heatmap.models.trust import Trust


def add_model(parser: Any) -> None:
    """Which model, or several."""
    text = f"one of {', '.join(BUILTIN)}, or a model file; "
    text += "given again, all of them over one reading of the slide"
    parser.add_argument("--model", required=True, action="append", metavar="M", help=text)
    parser.add_argument(
        "--arch", metavar="NAME", help="of the network, as timm calls it, for a file of weights"
    )
    text = "score the slide by a MIL checkpoint; the model is its encoder"
    parser.add_argument("--mil", metavar="CHECKPOINT", help=text)


def add_outputs(group: Any) -> None:
    """Which of a model's outputs, and how they are made of what it returns."""
    text = "key or index of what the model returns, or name or index of a class; given twice: "
    text += "of what it returns, then of a class of that (default: all classes)"
    group.add_argument("--output", action="append", type=_key, metavar="KEY|CLASS", help=text)
    text = "names of the outputs, with commas between them (default: the model's own)"
    group.add_argument("--names", type=_names, metavar="A,B", help=text)
    text = "made of what the model returns (default: the model's own)"
    group.add_argument("--activation", choices=ACTIVATIONS, help=text)
    text = "average the views of each window, mirrored (4) or turned as well (8), and add how much "
    group.add_argument("--tta", choices=TTA, help=text + "they differ (default: none)")


def output_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Settings of the model that were given, for a run."""
    given = {name: getattr(args, name) for name in OF_RUN if getattr(args, name) is not None}
    keys = given.get("output", ())
    return given if not keys else given | {"output": keys[0] if len(keys) == 1 else keys}


def _key(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?[0-9]{1,6}", text) else text


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name")
    return names


def add_trust(parser: Any) -> None:
    """Consent to model files that are code."""
    text = "load a model file that is code (TorchScript, .pt2); remembered by its sha256"
    parser.add_argument("--trust", type=trust_of, metavar="SHA256|yes", help=text)


def trust_of(text: str) -> Trust:
    """Read consent: "yes", or sha256 with commas between them."""
    if text == "yes":
        return True
    given = tuple(text.lower().split(","))
    if not all(re.fullmatch(r"[0-9a-f]{64}", one) for one in given):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a sha256 nor 'yes'")
    return given[0] if len(given) == 1 else given
