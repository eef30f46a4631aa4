"""Windows and values that a file holds, and the heatmap that they make on a slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.coords import WindowList
from napari_wsi_heatmap.derived import UNSURE
from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.grid import WindowSpec
from napari_wsi_heatmap.listmap import LIST, ListHeatmap, list_to_json
from napari_wsi_heatmap.runfolder import FORMAT, FORMAT_VERSION
from napari_wsi_heatmap.sides import FARTHEST
from napari_wsi_heatmap.states import DONE, NOT_FINITE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.slides.base import Slide

PREFIX = "prob_"
"""What WSInfer puts before the names of outputs that are probabilities."""


@dataclass(frozen=True)
class Listed:
    """What a file says."""

    corners: NDArray[Any]
    """(n, 2) top-left (y, x), in units; rounded to whole ones."""
    size: tuple[float, float]
    """(height, width) of a window, in units; rounded to whole ones."""
    values: NDArray[np.float32]
    """(n, C)."""
    names: tuple[str, ...]
    unit: tuple[float, float] = (1.0, 1.0)
    """(y, x) level-0 pixels in a unit."""
    level: int = 0
    cells: int = 1
    """How many of them, along a side, make what the model saw at once."""
    activation: str | None = None
    notices: tuple[str, ...] = ()


def heatmap_of(listed: Listed, slide: Slide, path: Path) -> ListHeatmap:
    """Place windows on a slide.

    Positions that lie on a lattice give one cell a window; see `napari_wsi_heatmap.listmap`.

    Raises
    ------
    StoreError
        If there are none, or they lie beyond the slide.
    """
    _refuse_nowhere(listed, path)
    listed = _without_doubles(listed)
    size = tuple(max(1, round(side)) for side in listed.size)
    corners = np.rint(listed.corners).astype(np.int64)
    pair = size[0], size[1]
    spec = WindowSpec(listed.level, listed.unit, pair, pair, pair, slide.mpp)
    windows = WindowList(spec, corners)
    _refuse_beyond(windows, listed.cells, slide, path)
    finite = np.isfinite(listed.values).all(1)
    state = np.where(finite, DONE, DONE | NOT_FINITE).astype(np.uint8)
    notices = (*listed.notices, *_rounded(listed, corners))
    record = _record(listed, slide, path) | {"list": list_to_json(windows), "notices": [*notices]}
    record["counts"] = _counts(state)
    return ListHeatmap(windows, listed.values, state, record)


def _without_doubles(listed: Listed) -> Listed:
    """Keep the last of windows at one place."""
    from dataclasses import replace

    _, last = np.unique(listed.corners[::-1], axis=0, return_index=True)
    doubles = len(listed.corners) - len(last)
    if not doubles:
        return listed
    kept = np.sort(len(listed.corners) - 1 - last)
    notice = f"{doubles} windows are listed more than once: the last of each counts"
    return replace(
        listed,
        corners=listed.corners[kept],
        values=listed.values[kept],
        notices=(*listed.notices, notice),
    )


def _refuse_nowhere(listed: Listed, path: Path) -> None:
    if not len(listed.corners):
        raise StoreError("it holds no windows", path, "check what wrote it")
    if not (np.abs(listed.corners) < FARTHEST).all():  # nor is NaN
        raise StoreError("some positions are on no slide", path, "check what wrote it")
    if not all(0 < side < FARTHEST for side in listed.size):
        high, wide = listed.size
        raise StoreError(f"windows are {high:g} x {wide:g} px", path, "check what wrote it")


def _refuse_beyond(windows: WindowList, cells: int, slide: Slide, path: Path) -> None:
    near = windows.positions(np.arange(windows.size))
    size = np.asarray(windows.spec.footprint_level0)
    # Of what hangs over the border all cells are listed.
    limit = slide.levels[0].shape + (cells - 1) * size
    outside = (near + size <= 0).any(1) | (near >= limit).any(1)
    if outside.any():
        raise StoreError(
            f"{np.count_nonzero(outside)} of {windows.size} windows lie beyond {slide.name}",
            path,
            "hand over the slide that it was computed on",
        )


def _rounded(listed: Listed, corners: NDArray[np.int64]) -> tuple[str, ...]:
    if (corners == listed.corners).all():
        return ()
    return ("positions between pixels were rounded to whole ones",)


def _record(listed: Listed, slide: Slide, path: Path) -> dict[str, Any]:
    # It imports torch.
    from napari_wsi_heatmap.record import describe_slide, now

    probabilities = listed.activation is not None
    model = {
        "name": path.stem,
        **dict.fromkeys(("spec", "sha256", "mpp", "output")),
        "names": list(listed.names),
        "activation": listed.activation,
        "unit": "probability" if probabilities else "",
        "limits": [0.0, 1.0] if probabilities else None,
    }
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": LIST,
        "status": "done",
        "reason": "",
        "slide": describe_slide(slide),
        "model": model,
        "settings": {},
        "failed": [],
        "imported": str(path),
        "begun": now(),
    }


def _counts(state: NDArray[np.uint8]) -> dict[str, int]:
    from napari_wsi_heatmap.record import account

    return account(state)


def plain_names(columns: list[str]) -> tuple[tuple[str, ...], str | None]:
    """Names of outputs, and the activation that gave them.

    WSInfer applies softmax to more than one output and a sigmoid to one, and puts ``prob_``
    before their names.
    """
    columns = [name.removeprefix("'") for name in columns]
    outputs = [name for name in columns if name not in UNSURE]
    if not outputs or not all(name.startswith(PREFIX) for name in outputs):
        return tuple(columns), None
    names = tuple(name.removeprefix(PREFIX) for name in columns)
    return names, "softmax" if len(outputs) > 1 else "sigmoid"


def side_of_lattice(corners: NDArray[Any], path: Path) -> tuple[int, str]:
    """Guess the side of a window where nothing says it: the smallest step; and a notice."""
    steps = [np.diff(np.unique(corners[:, axis])) for axis in (0, 1)]
    steps = [step[step > 0] for step in steps]
    if not any(map(len, steps)):
        raise StoreError("nothing says how large a window is", path, "give window= (level-0 px)")
    side = round(float(min(step.min() for step in steps if len(step))))
    return side, f"windows are taken to be {side} px wide, their smallest distance: give window="
