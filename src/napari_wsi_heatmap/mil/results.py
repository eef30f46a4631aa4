"""The table of results: one row a slide, what the model says of it.

``slide_id, label, bag_size, Pred_0, Pred_1, …, p_0, p_1, …, Y_hat, prediction``. ``Pred_X`` holds X
where class X is predicted and is empty elsewhere; ``p_X`` is the probability of class X. ``Y_hat``
is the predicted class, empty without a classifier; ``prediction`` the same, then ``none``.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.mil.experiment import NO_CLASS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_wsi_heatmap.models.mil.bag import Bag


@dataclass(frozen=True)
class Result:
    """What a model says of one slide."""

    slide_id: str
    label: str
    bag_size: int
    """Number of patches."""
    probabilities: tuple[float, ...]
    """(C,); of one logit the two of "no" and "yes"; empty without a classifier."""
    prediction: int | None

    @classmethod
    def of(cls, slide_id: str, label: str, bag: Bag) -> Result:
        """Take over what a bag says."""
        # The shortest text that gives back the same float32.
        shares = tuple(float(str(p)) for p in bag.probabilities)
        return cls(slide_id, label, len(bag), shares, bag.prediction)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Result:
        """Undo `to_json`."""
        return cls(**{**found, "probabilities": tuple(found["probabilities"])})

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self) | {"probabilities": list(self.probabilities)}

    def cells(self, classes: int) -> list[Any]:
        """Cells of its row, in a table of so many classes."""
        none = [""] * (classes - len(self.probabilities))
        hits = [c if c == self.prediction else "" for c in range(classes)]
        hat = "" if self.prediction is None else self.prediction
        return [
            self.slide_id, self.label, self.bag_size, *hits, *self.probabilities, *none,
            hat, NO_CLASS if self.prediction is None else self.prediction,
        ]  # fmt: skip


def header_of(classes: int) -> list[str]:
    """Names of the columns."""
    numbers = range(classes)
    predicted, shares = [f"Pred_{c}" for c in numbers], [f"p_{c}" for c in numbers]
    return ["slide_id", "label", "bag_size", *predicted, *shares, "Y_hat", "prediction"]


def write_results(path: Path, results: Sequence[Result]) -> None:
    """Write the table, whole or not at all.

    Raises
    ------
    StoreFullError
        If it cannot be written.
    """
    classes = max((len(result.probabilities) for result in results), default=0)
    _write(path, [header_of(classes), *(result.cells(classes) for result in results)])


def write_failed(path: Path, failed: Mapping[str, str]) -> None:
    """Write which slides have no results, and why; no file where there are none."""
    if failed:
        _write(path, [["slide_id", "error"], *failed.items()])
    else:
        path.unlink(missing_ok=True)


def _write(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    with written_at_once(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
