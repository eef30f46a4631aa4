"""What is asked of every slide of a cohort, and the file that keeps it beside the results."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import PlanMismatchError, StoreError, StoreExistsError
from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.models.settings import apart
from napari_wsi_heatmap.runfolder import ENDING, writing
from napari_wsi_heatmap.settings import RunSettings

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.models.trust import Trust

RECORD = "cohort.json"
FORMAT = "napari-wsi-heatmap cohort"
BYSTANDERS = ("readers", "memory", "order", "viewport", "device")
"""Settings that do not decide values, or that each slide's own record guards."""


@dataclass(frozen=True)
class Request:
    """Model and settings for all slides; goes to each worker once.

    Attributes
    ----------
    model : str, nn.Module or callable
        As for `load_model`; a file must be found by the workers.
    out : Path
        Folder of the results.
    settings : dict
        Of the run, and of the model (output, activation, tta, names).
    trust, arch
        As for `load_model`.
    again : bool
        Compute windows that failed in an earlier session once more.
    expendable : bool
        Workers may die: slides are opened without asking a child process first.
    threads : int or None
        Of torch in a worker; None: as they are.
    key : str
        Tells it from other cohorts on the same workers.
    """

    model: Any
    out: Path
    settings: dict[str, Any] = field(default_factory=dict)
    trust: Trust = None
    arch: Any = None
    again: bool = False
    expendable: bool = False
    threads: int | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def output(self, name: str) -> Path:
        """Store of a slide."""
        return self.out / f"{name}{ENDING}"

    def holder(self) -> Any:
        """Class of what a worker holds; called as ``holder(request, name)``."""
        from napari_wsi_heatmap.cohort.held import Held

        return Held

    def check(self) -> None:
        """Refuse settings that cannot be, before anything begins.

        Raises
        ------
        GridError, TypeError
        """
        RunSettings.of(apart(self.settings)[1])

    def identity(self, model_sha256: str | None) -> dict[str, Any]:
        """Everything that must be the same for a cohort to be continued; None: any model."""
        decides = {k: v for k, v in self.settings.items() if k not in BYSTANDERS and v is not None}
        plain = json.loads(json.dumps(decides, default=_described, sort_keys=True))
        return {"model": model_sha256, "settings": plain}


def keep_request(out: Path, identity: dict[str, Any]) -> None:
    """Write `cohort.json`, or refuse to mix two cohorts in one folder.

    Raises
    ------
    StoreExistsError
        If the folder holds something else.
    PlanMismatchError
        If another model or other settings were used there.
    StoreError
        If the file is damaged.
    """
    path = out / RECORD
    if path.exists():
        _refuse_other(path, identity)
        return
    with written_at_once(path) as part:
        record = {"format": FORMAT, "format_version": 1, **identity}
        part.write_text(json.dumps(record, indent=1), encoding="utf-8")


def refuse_other_settings(request: Request) -> None:
    """Refuse what can be refused before the model is known; see `keep_request`."""
    if (request.out / RECORD).exists():
        _refuse_other(request.out / RECORD, request.identity(None))


def begin_folder(out: Path) -> None:
    """Make the folder of a cohort.

    Raises
    ------
    StoreExistsError
        If it holds something else, or there is a file.
    """
    with writing(out):
        if out.exists() and not out.is_dir():
            raise StoreExistsError("there is a file", out, "choose another output")
        if out.is_dir() and not (out / RECORD).exists():
            strange = [entry.name for entry in out.iterdir() if not entry.name.startswith(".")]
            if strange:
                what = f"the folder holds something else ({strange[0]})"
                raise StoreExistsError(what, out, "choose a new or empty folder")
        out.mkdir(parents=True, exist_ok=True)


def _refuse_other(path: Path, identity: dict[str, Any]) -> None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["format"] != FORMAT:
            raise ValueError("it is something else")
        before = {"model": kept["model"], "settings": dict(kept["settings"])}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StoreError(f"it cannot be read: {error}", path, "choose another output") from error
    if before == identity | {"model": identity["model"] or before["model"]}:
        return
    one, other = before["settings"], identity["settings"]
    names = [k for k in sorted({*one, *other}) if one.get(k) != other.get(k)] or ["model"]
    raise PlanMismatchError(
        f"the cohort was begun with another {' and another '.join(names)}",
        path,
        "choose another output, or what it was begun with",
    )


def _described(value: Any) -> Any:
    """What JSON has no form for: arrays by their content, paths as text."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        content = f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes()
        return hashlib.sha256(content).hexdigest()
    return str(value)
