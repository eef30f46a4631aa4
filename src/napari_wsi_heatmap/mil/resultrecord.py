"""What a stored result says in words and numbers: its record, and the channels of its map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.runfolder import FORMAT, FORMAT_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.result import MilResult
    from napari_wsi_heatmap.models.mil.bag import Bag

    Values = NDArray[np.float32]

SCORE: Final = "score"
"""Channel that is drawn: of the predicted class, unless another was asked for."""
KINDS: Final = ("attention", "weight", "instance")
TAKEN: Final = ("slide", "tissue", "settings", "kind", "list")
"""What a result's record says as that of its features does."""
LEFT_OUT: Final = "its features are not finite"


def channels_of(bag: Bag) -> tuple[tuple[str, ...], Values]:
    """Names and values (N, 1 + K + K + I) of everything that a bag says of its patches.

    ``score`` is what is drawn; ``attention`` the raw score and ``weight`` the weight of each of K
    branches; ``instance`` the patch's own logits, where a model has them. With one branch the
    names have no number.
    """
    parts: list[Any] = [bag.scores, bag.weights]
    parts += [] if bag.instance_logits is None else [bag.instance_logits]
    names = [
        kind if part.shape[1] == 1 else f"{kind} {column}"
        for kind, part in zip(KINDS, parts, strict=False)
        for column in range(part.shape[1])
    ]
    return (SCORE, *names), np.concatenate([bag.patch_score[:, None], *parts], 1)


def bag_from(mil: Mapping[str, Any], values: Values) -> Bag:
    """Rebuild a bag from its record and the channels (N, C) of its map."""
    from napari_wsi_heatmap.models.mil.bag import Bag

    branches, instances = mil["branches"], mil["instances"]
    ends = np.cumsum([1, branches, branches, instances])
    parts = [np.ascontiguousarray(part) for part in np.split(values, ends[:-1], axis=1)]
    return Bag(
        logits=np.array(mil["logits"], np.float32),
        probabilities=np.array(mil["probabilities"], np.float32),
        scores=parts[1],
        weights=parts[2],
        prediction=mil["prediction"],
        branch=mil["branch"],
        drawn=mil["drawn"],
        instance_logits=parts[3] if instances else None,
    )


def new_record(
    result: MilResult,
    names: tuple[str, ...],
    source: Mapping[str, Any],
    state: NDArray[np.uint8],
    left_out: NDArray[np.int64],
) -> dict[str, Any]:
    """Describe a result; `source` is the record of what its features belong to."""
    from napari_wsi_heatmap.record import FAILURES_LISTED, account, now

    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "status": "done",
        "reason": "",
        "plan": {},
        "settings": {},
        **{key: _listed(key, source[key]) for key in TAKEN if key in source},
        "model": _model(result.provenance["mil"], names),
        "notices": list(result.notices),
        "counts": account(state),
        "failed": [[int(i), LEFT_OUT] for i in left_out[:FAILURES_LISTED]],
        "begun": now(),
        "mil": describe(result),
    }


def _listed(key: str, value: Any) -> Any:
    """Of a list that is folded in its own store: here it is plain."""
    from napari_wsi_heatmap.folded import FOLDED

    return {k: v for k, v in value.items() if k != FOLDED} if key == "list" else value


def _model(mil: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    nothing = dict.fromkeys(("spec", "mpp", "output", "activation", "limits"))
    name = f"{mil['type']} attention"
    return {"name": name, "sha256": mil["sha256"], "names": list(names), "unit": "", **nothing}


def describe(result: MilResult) -> dict[str, Any]:
    """What a result says of the slide as a whole, as JSON; floats come back bit by bit."""
    bag = result.bag
    return {
        "prediction": bag.prediction,
        "logits": _numbers(bag.logits),
        "probabilities": _numbers(bag.probabilities),
        "patches": len(bag),
        "branch": bag.branch,
        "branches": bag.scores.shape[1],
        "drawn": bag.drawn,
        "instances": 0 if bag.instance_logits is None else bag.instance_logits.shape[1],
        "provenance": dict(result.provenance),
    }


def _numbers(values: Values) -> list[float | None]:
    """JSON has no NaN: None, which becomes NaN again."""
    return [float(v) if np.isfinite(v) else None for v in values]
