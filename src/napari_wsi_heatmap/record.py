"""The record of a run, `run.json`: what was run on what, how far it came, and what went wrong."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.frame import frame_to_json
from napari_wsi_heatmap.mismatch import digest
from napari_wsi_heatmap.models.arithmetic import describe_arithmetic
from napari_wsi_heatmap.models.outputs import plain_output
from napari_wsi_heatmap.report import failed_line
from napari_wsi_heatmap.runfolder import FORMAT, FORMAT_VERSION
from napari_wsi_heatmap.states import FAILED as WINDOW_FAILED
from napari_wsi_heatmap.states import count_states, state_of
from napari_wsi_heatmap.timings import Timings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.models.again import Spec
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.plan import Plan
    from napari_wsi_heatmap.predict import Halving
    from napari_wsi_heatmap.slides.base import Slide

RUNNING = "running"
PAUSED = "paused"
DONE = "done"
DONE_WITH_FAILURES = "done-with-failures"
FAILED = "failed"

FAILURES_LISTED = 1000
"""Failed windows named with their reasons; all are counted, and all are in `state`."""
NO_REASON = "the reason was not recorded"

HALVED = (
    "memory ran out: from window {at_window} on a batch holds {to} windows, not {from}, "
    "and last bits can differ"
)


def new_record(plan: Plan, model_spec: Spec) -> dict[str, Any]:
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
        "model": describe_model(plan.model, plan.names, model_spec, plan.uncertainty),
        "frame": frame_to_json(plan.frame),
        "tissue": plan.tissue.record,
        "bit_identity": {
            "independent_of_neighbours": plan.dry.independent,
            "holds_for": ["device", "precision", "versions", "batch_size", "compile"],
            "arithmetic": describe_arithmetic(plan.predictor.device),
            "channels_last": plan.predictor.channels_last,
        },
        "batch_size": {
            "used": plan.batch_size,
            "seconds": plan.dry.seconds_per_batch,
            "tried": [{"size": t.size, "seconds": t.seconds} for t in plan.dry.trials],
        },
        "halved": [],
        "notices": list(plan.notices),
        "counts": account(plan.selection.state),
        "failed": [],
        "begun": now(),
        **Timings().record,
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


def describe_model(
    model: HeatmapModel, names: tuple[str, ...], spec: Spec, uncertainty: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Which model it was, and what its values mean."""
    return {
        "name": model.name,
        "spec": spec,
        "sha256": model.sha256,
        "names": list(names),
        "mpp": model.mpp,
        "output": plain_output(model.output),
        "activation": model.activation,
        "unit": model.unit,
        "limits": None if model.limits is None else list(model.limits),
        **({"uncertainty": list(uncertainty)} if uncertainty else {}),
        **({"tta": model.tta} if model.tta else {}),
    }


def account(state: NDArray[np.uint8]) -> dict[str, int]:
    """Count windows by state; ``planned`` is all of them, whatever became of them.

    At the end of a run, done + background + outside + failed = planned.
    """
    return {"planned": state.size, **count_states(state)}


def note_halving(record: dict[str, Any], window: int, halving: Halving) -> None:
    """Say in a record that memory ran out, and from which window on batches are smaller."""
    sizes = {"at_window": window, "from": halving.before, "to": halving.after}
    # New lists: a writer's thread may be saving the record.
    record["halved"] = [*record["halved"], sizes]
    record["notices"] = [*record["notices"], HALVED.format(**sizes)]


def list_failed(state: NDArray[np.uint8], reasons: dict[int, str]) -> list[tuple[int, str]]:
    """Name the first `FAILURES_LISTED` windows that failed: (flat index, reason)."""
    failed = np.flatnonzero(state_of(state) == WINDOW_FAILED)[:FAILURES_LISTED].tolist()
    return [(i, reasons.get(i, NO_REASON)) for i in failed]


def outcome(state: NDArray[np.uint8], error: BaseException | None, reason: str) -> tuple[str, str]:
    """Status and reason of a run that stops now."""
    counts = account(state)
    if error is not None:
        return FAILED, f"{type(error).__name__}: {error}"
    if counts["pending"]:
        return PAUSED, reason
    accounted = sum(counts[name] for name in ("done", "background", "outside", "failed"))
    if accounted != counts["planned"]:
        return FAILED, f"{counts['planned'] - accounted} windows have a state that there is not"
    if counts["failed"]:
        return DONE_WITH_FAILURES, failed_line(counts)
    return DONE, ""


def now() -> str:
    """The time as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
