"""What a configuration states of a model, held against what the tensors say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.mil.kinds import TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from napari_wsi_heatmap.models.mil.layout import Facts

_ALSO = {"clam": "clam_sb", "ds_mil": "dsmil", "trans_mil": "transmil"}


def check_claims(claims: Mapping[str, Any], facts: Facts, path: Path) -> tuple[str, ...]:
    """Compare what is stated (None: nothing) with the tensors, which are right.

    Returns
    -------
    tuple of str
        What differs without doing harm, one sentence each.

    Raises
    ------
    ModelLoadError
        If type, in_dim, classes, heads or gating differ; names both.
    """
    said = {name: value for name, value in claims.items() if value is not None}
    if "model_type" in said:
        said["model_type"] = _type(said["model_type"], path)
    given = said.pop("attention_dim", None)
    for name, value in said.items():
        if not _holds(name, value, facts):
            what = (
                f"{name} is given as {value}, and the checkpoint says {_of(name, facts)} ({facts})"
            )
            raise ModelLoadError(what, path, f"correct {name}, or choose the other checkpoint")
    if given is None or given == facts.attention_dim:
        return ()
    return (f"attention_dim is given as {given}; the checkpoint has {facts.attention_dim}",)


def _type(name: Any, path: Path) -> str:
    kind = str(name).lower().replace("-", "_")
    kind = _ALSO.get(kind, kind)
    if kind not in TYPES:
        raise ModelLoadError(f"no MIL type {name!r}", path, f"there are {', '.join(TYPES)}")
    return kind


def _of(name: str, facts: Facts) -> Any:
    return facts.kind if name == "model_type" else getattr(facts, name)


def _holds(name: str, value: Any, facts: Facts) -> bool:
    if name == "gated" and facts.gated is None:
        return True
    if name == "n_classes":
        # One logit judges two classes; without a classifier there is nothing to compare.
        return facts.n_classes in (0, value) or (facts.n_classes == 1 and value == 2)
    return bool(_of(name, facts) == value)
