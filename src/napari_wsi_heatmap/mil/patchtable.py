"""The patches that a MIL model scores highest and lowest, as a table that says where it is from.

The CSV has a row a patch; each says checkpoint, encoder, definition of the score and display, so
that rows of several slides can be put together. Beside it lies ``<name>.provenance.json``: the
prediction, and the whole provenance.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.exports.csv import harmless
from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.mil.config import Sample
from napari_wsi_heatmap.mil.display import to_display
from napari_wsi_heatmap.mil.sampling import chosen_patches
from napari_wsi_heatmap.models.mil.bag import column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.result import MilResult

PROVENANCE: Final = ".provenance.json"
MODES: Final = {"highest": "topk", "lowest": "bottomk"}


@dataclass(frozen=True, eq=False)
class Extremes:
    """The patches that a model scores highest, or lowest, first the most extreme.

    Attributes
    ----------
    which : {"highest", "lowest"}
    index : (k,) int64
        Of the patches, in the bag.
    positions : (k, 2) float64
        Top-left corner (y, x), level-0 pixels.
    size : (float, float)
        (height, width) of a patch, level-0 pixels.
    scores, weights, percentiles : (k,)
        Raw score, attention weight, and rank among all patches in 0…1.
    """

    which: str
    index: NDArray[np.int64]
    positions: NDArray[np.float64]
    size: tuple[float, float]
    scores: NDArray[np.float32]
    weights: NDArray[np.float32]
    percentiles: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.index)


def extremes(result: MilResult, which: str, k: int, branch: int) -> Extremes:
    """Choose the k patches with the highest, or the lowest, score of a class.

    Parameters
    ----------
    result : MilResult
        Of patches whose places are known.
    which : {"highest", "lowest"}
    k : int
    branch : int
    """
    assert result.coords is not None
    assert result.patch_size is not None
    scores = result.score_of(branch)
    index = chosen_patches(scores, Sample(which, True, MODES[which], k, 0, 0.0, 1.0))
    weights = result.bag.weights
    return Extremes(
        which,
        index,
        np.asarray(result.coords, np.float64)[index],
        result.patch_size,
        scores[index],
        weights[index, column(branch, weights.shape[1])],
        to_display(scores)[index],
    )


def write_table(
    result: MilResult,
    path: Path,
    found: Sequence[Extremes],
    *,
    slide: str,
    branch: int,
    display: str,
    classes: Mapping[int, str] | None = None,
) -> Path:
    """Write patches as CSV, and beside it the provenance as JSON.

    Parameters
    ----------
    result : MilResult
    path : Path
        Of the CSV; what is there is replaced.
    found : sequence of Extremes
    slide : str
        Name of the slide.
    branch : int
        Class whose score counts.
    display : str
        How the map is drawn.
    classes : mapping, optional
        Names of classes, by number.

    Returns
    -------
    Path
        The CSV.

    Raises
    ------
    ExportError, StoreFullError
        If it cannot be written.
    """
    said = _said(result, slide, branch, display, classes or {})
    with written_at_once(path.with_suffix(PROVENANCE)) as part:
        part.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    with written_at_once(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        tail = _tail(said)
        table.writerow([*COLUMNS, *tail])
        for each in found:
            table.writerows([*row, *map(harmless, tail.values())] for row in _rows(each))
    return path


COLUMNS: Final = (
    "which", "rank", "patch", "y", "x", "height", "width", "score", "weight", "percentile",
)  # fmt: skip


def _rows(found: Extremes) -> list[list[Any]]:
    return [
        [found.which, rank + 1, int(found.index[rank]), *found.positions[rank].tolist(),
         *found.size, str(found.scores[rank]), str(found.weights[rank]),
         repr(round(float(found.percentiles[rank]), 6))]
        for rank in range(len(found))
    ]  # fmt: skip


def _tail(said: Mapping[str, Any]) -> dict[str, str]:
    """What every row says of where it is from."""
    mil, features = said["mil"], said["features"]
    return {
        "slide": said["slide"],
        "prediction": "none" if said["prediction"] is None else str(said["prediction"]),
        "class": str(said["branch"]),
        "class_name": said["class_names"].get(str(said["branch"]), ""),
        "attention": mil["attention"],
        "display": said["display"],
        "checkpoint": mil["checkpoint"],
        "checkpoint_sha256": mil["sha256"],
        "encoder": str(features.get("encoder", "")),
        "features": str(features.get("path") or ""),
    }


def _said(
    result: MilResult, slide: str, branch: int, display: str, classes: Mapping[int, str]
) -> dict[str, Any]:
    bag = result.bag
    return {
        "slide": slide,
        "patches": len(bag),
        "prediction": bag.prediction,
        "logits": bag.logits.tolist(),
        "probabilities": bag.probabilities.tolist(),
        "branch": branch,
        "class_names": {str(number): name for number, name in classes.items()},
        "display": display,
        **result.provenance,
    }
