"""What the MIL section says: names of classes, what is predicted, how likely it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_wsi_heatmap.mil.sofar import SoFar
    from napari_wsi_heatmap.models.mil.layout import Facts

    Names = Mapping[int, str]

NO_CLASSIFIER = "The checkpoint has no classifier: there is attention, and no prediction."
OWN_BRANCHES = ("clam_mb", "dsmil")
"""Types in which each class has an attention of its own."""


def names_in(text: str) -> dict[int, str]:
    """Names of classes that somebody has typed: "normal, tumour"; an empty one has its number."""
    words = [word.strip() for word in text.split(",")]
    return {number: word for number, word in enumerate(words) if word}


def names_of_config(label_dict: Mapping[str, int] | None) -> dict[int, str]:
    """Names of classes, as the ``label_dict`` of a configuration has them."""
    return {number: name for name, number in (label_dict or {}).items()}


def as_typed(names: Names) -> str:
    """Names of classes as somebody would type them."""
    return ", ".join(names.get(number, "") for number in range(max(names, default=-1) + 1))


def class_word(number: int, names: Names) -> str:
    """A class by its name, else by its number."""
    return names.get(number, f"class {number}")


def branches_of(facts: Facts) -> int:
    """Number of classes with an attention of their own; 1 if one serves all."""
    return max(1, facts.n_classes) if facts.kind in OWN_BRANCHES else 1


def layer_name(checkpoint: Mapping[str, Any], branch: int, branches: int, names: Names) -> str:
    """Name of the layer of attention.

    Parameters
    ----------
    checkpoint : mapping
        As the provenance of a result has it.
    branch : int
        Class whose attention is drawn.
    branches : int
        How many classes have one of their own.
    names : mapping
        Of classes.
    """
    attention = str(checkpoint["attention"])
    other = f" ({attention})" if attention != checkpoint["attentions"][0] else ""
    whose = f" for {class_word(branch, names)}" if branches > 1 else ""
    return f"{Path(checkpoint['checkpoint']).stem}: attention{other}{whose}"


def prediction_line(said: Any, names: Names) -> str:
    """What is predicted; `said` is a bag, or what was said so far."""
    if said.prediction is None:
        return NO_CLASSIFIER
    likely = float(said.probabilities[said.prediction])
    return f"Prediction: {class_word(said.prediction, names)}, probability {likely:.3g}"


def so_far_line(said: SoFar, names: Names) -> str:
    """What is predicted of a part of the slide."""
    share = 100 * said.share
    return f"{prediction_line(said, names)}\nso far: {share:.0f} % of the bag"


def whole_line(bag: Any, names: Names) -> str:
    """What is predicted of the whole slide."""
    line = prediction_line(bag, names)
    many = f"{len(bag):,} patches"
    return f"{line} {many}." if bag.prediction is None else f"{line}, of {many}"


def probability_rows(said: Any, names: Names) -> list[list[str]]:
    """A row each class: its name, its probability."""
    return [
        [f"{'▸ ' if number == said.prediction else ''}{class_word(number, names)}", f"{p:.4f}"]
        for number, p in enumerate(said.probabilities.tolist())
    ]


def logit_tips(said: Any) -> Sequence[str]:
    """What is said of each class under the mouse."""
    logits = said.logits.tolist()
    several = len(logits) == len(said.probabilities)
    return [
        f"probability {p:.6g}, logit {logits[number if several else 0]:.6g}"
        for number, p in enumerate(said.probabilities.tolist())
    ]
