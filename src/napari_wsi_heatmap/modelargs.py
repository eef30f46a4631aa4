"""What may be typed on the command line about models."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.models import BUILTIN

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
