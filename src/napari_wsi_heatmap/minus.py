"""First minus second, of heatmaps that are there: `Heatmap.minus`.

Memory bound: both maps, and a third one, in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.difference import (
    difference_name,
    paired_names,
    refuse_other_frames,
    states_of_both,
    symmetric,
)
from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.frame import frame_to_json
from napari_wsi_heatmap.heatmap import Heatmap
from napari_wsi_heatmap.runfolder import DIFFERENCE
from napari_wsi_heatmap.states import count_states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_wsi_heatmap.growing import States, Values

SAMPLE = 1 << 20
"""Values of which percentiles are taken."""
PERCENTILES = (1, 99)
"""A few extreme windows (a fold, a pen mark) must not take all the contrast."""


def subtract(first: Heatmap, second: Heatmap) -> Heatmap:
    """Subtract a heatmap from another one, window by window.

    Parameters
    ----------
    first, second : Heatmap
        Of one slide, over the same windows, with as many outputs; where there are several they
        have the same names. They need not be whole.

    Returns
    -------
    Heatmap
        In memory: first minus second, NaN where either has no value. Its record has limits that
        are symmetric about 0, and names what was subtracted from what.

    Raises
    ------
    GridError
        If they are of different slides, or lie on different windows; says which.
    ModelOutputError
        If their outputs do not belong together.
    """
    _refuse_other_slides(first.run["slide"], second.run["slide"])
    refuse_other_frames(first.frame, second.frame)
    paired_names(first.names, second.names, difference_name(*_titles(first, second)))
    with np.errstate(invalid="ignore", over="ignore"):
        values = first.values - second.values
    return described(first, second, values, states_of_both(first.state, second.state))


def described(
    first: Heatmap,
    second: Heatmap,
    values: Values,
    state: States,
    titles: tuple[str, str] | None = None,
) -> Heatmap:
    """Make a heatmap of a difference that is already computed; its arrays are not copied.

    Parameters
    ----------
    first, second : Heatmap
    values : (C, My, Mx) float32
    state : (Y, X) uint8
    titles : (str, str), optional
        What the two are called.
    """
    name = difference_name(*(titles or _titles(first, second)))
    names = paired_names(first.names, second.names, name)
    model = _model(first.run["model"], second.run["model"], name, names)
    model["limits"] = symmetric(_percentiles(values))
    return Heatmap(values, state, first.frame, _record(first, second, state, model))


def _refuse_other_slides(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    names = f"{first['name']} and {second['name']}"
    if first.get("colours") != second.get("colours"):
        what = f"colours {first.get('colours')} and {second.get('colours')}"
        raise GridError(f"the models saw different colours: {what}", names)
    if first["fingerprint"] != second["fingerprint"]:
        raise GridError("the heatmaps are of two slides", names, "compare heatmaps of one")


def _titles(first: Heatmap, second: Heatmap) -> tuple[str, str]:
    """Names that tell heatmaps apart: their models', else their stores'."""
    ours, theirs = (str(heatmap.run["model"]["name"]) for heatmap in (first, second))
    if ours == theirs and first.path and second.path and first.path.stem != second.path.stem:
        return first.path.stem, second.path.stem
    return ours, theirs


def _model(
    first: Mapping[str, Any], second: Mapping[str, Any], name: str, names: Sequence[str]
) -> dict[str, Any]:
    unit = first["unit"] if first["unit"] == second["unit"] else ""
    # No longer probabilities, whatever the models gave.
    nothing = {"spec": None, "sha256": None, "output": None, "activation": None}
    return {"name": name, **nothing, "names": list(names), "mpp": first["mpp"], "unit": unit}


def _record(
    first: Heatmap, second: Heatmap, state: States, model: Mapping[str, Any]
) -> dict[str, Any]:
    counts = {"planned": state.size, **count_states(state)}
    failed = {int(i): str(why) for h in (second, first) for i, why in h.run.get("failed", ())}
    return {
        "kind": DIFFERENCE,
        "status": "paused" if counts["pending"] else "done",
        "slide": dict(first.run["slide"]),
        "model": dict(model),
        "settings": dict(first.run.get("settings", {})),
        "frame": frame_to_json(first.frame),
        "counts": counts,
        "failed": [[i, failed[i]] for i in sorted(failed)],
        "notices": [],
        "of": [
            {"path": h.path and str(h.path), "plan_sha256": h.run.get("plan_sha256")}
            for h in (first, second)
        ],
    }


def _percentiles(values: Values) -> tuple[float, float]:
    """Low and high percentile of the finite values; (0, 0) if there are none."""
    flat = values.reshape(-1)
    some = flat[:: max(1, flat.size // SAMPLE)]
    finite = some[np.isfinite(some)]
    low, high = np.percentile(finite, PERCENTILES).tolist() if finite.size else (0.0, 0.0)
    return low, high
