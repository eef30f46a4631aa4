"""The record of a run, `run.json`: what was run on what, how far it came, and what went wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.heatmap import frame_to_json
from napari_wsi_heatmap.plan import digest
from napari_wsi_heatmap.runfolder import FORMAT, FORMAT_VERSION
from napari_wsi_heatmap.states import count_states

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.plan import Plan
    from napari_wsi_heatmap.slides.base import Slide

RUNNING = "running"
PAUSED = "paused"
DONE = "done"
DONE_WITH_FAILURES = "done-with-failures"
FAILED = "failed"

FAILURES_LISTED = 1000
"""Failed windows named with their reasons; all of them are in `state`."""


def new_record(plan: Plan, model_spec: str | None) -> dict[str, Any]:
    """Describe a run that is about to begin.

    Parameters
    ----------
    plan : Plan
    model_spec : str or None
        What `load_model` makes the model from again; None if it was handed over in Python.
    """
    identity = plan.identity
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "status": RUNNING,
        "reason": "",
        "plan": identity,
        "plan_sha256": digest(identity),
        "settings": plan.settings.to_json(
            plan.grid.spec.level, plan.grid.spec.window, plan.model.mpp
        ),
        "slide": describe_slide(plan.slide),
        "model": describe_model(plan.model, plan.names, model_spec),
        "frame": frame_to_json(plan.frame),
        "tissue": plan.tissue.record,
        "bit_identity": {
            "independent_of_neighbours": plan.dry.independent,
            "holds_for": ["device", "precision", "versions", "batch_size"],
        },
        "notices": list(plan.notices),
        "counts": count_states(plan.selection.state),
        "failed": [],
        "begun": now(),
        "seconds": {},
    }


def describe_slide(slide: Slide) -> dict[str, Any]:
    """Which slide it was, and what it says of itself."""
    return {
        "path": slide.path,
        "name": slide.name,
        "backend": slide.backend,
        "fingerprint": slide.fingerprint,
        "colours": slide.colours,
        "shape": list(slide.levels[0].shape),
        "mpp": None if slide.mpp is None else list(slide.mpp),
        "warnings": list(slide.warnings),
    }


def describe_model(model: HeatmapModel, names: tuple[str, ...], spec: str | None) -> dict[str, Any]:
    """Which model it was, and what its values mean."""
    return {
        "name": model.name,
        "spec": spec,
        "sha256": model.sha256,
        "names": list(names),
        "mpp": model.mpp,
        "output": model.output,
        "activation": model.activation,
        "unit": model.unit,
        "limits": None if model.limits is None else list(model.limits),
    }


def outcome(state: NDArray[np.uint8], error: BaseException | None, reason: str) -> tuple[str, str]:
    """Status and reason of a run that stops now."""
    counts = count_states(state)
    if error is not None:
        return FAILED, f"{type(error).__name__}: {error}"
    if counts["pending"]:
        return PAUSED, reason
    if counts["failed"]:
        return DONE_WITH_FAILURES, f"{counts['failed']} windows could not be read"
    return DONE, ""


def now() -> str:
    """The time as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
