"""Whether an output may be continued: whether its plan is the one at hand."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import PlanMismatchError

if TYPE_CHECKING:
    from typing import Any


def digest(identity: dict[str, Any]) -> str:
    """Hex digest of a plan's identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def refuse_mismatch(planned: dict[str, Any], recorded: dict[str, Any], where: object) -> None:
    """Refuse to continue an output whose plan differs, naming what differs.

    Raises
    ------
    PlanMismatchError
    """
    differing = [key for key in planned if planned[key] != recorded.get(key)]
    if differing:
        changes = ", ".join(
            f"{key} {_short(recorded.get(key))} → {_short(planned[key])}" for key in differing[:3]
        )
        raise PlanMismatchError(
            f"the output was begun with another {' and '.join(differing)} ({changes})",
            where,
            "choose another output, or the settings it was begun with",
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:12].strip('"') + "…"
