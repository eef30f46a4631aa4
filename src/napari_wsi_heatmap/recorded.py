"""What an existing output says of the run it was begun with, for the one that continues it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import ModelLoadError, PlanMismatchError
from napari_wsi_heatmap.runfolder import is_store, read_record, reading
from napari_wsi_heatmap.slides import BACKENDS
from napari_wsi_heatmap.slides.base import AS_STORED

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.slides.base import Slide


def settings_for(out: Path | None, settings: RunSettings) -> RunSettings:
    """Continue an output with the batch size it was begun with: it decides the last bits."""
    if out is None or settings.batch_size is not None or not is_store(out):
        return settings
    with reading(out, "the record of the run"):
        return replace(settings, batch_size=read_record(out)["plan"]["batch_size"])


def recorded_backend(out: Path | None) -> str | None:
    """Name the backend an output was begun with: with another one it could not be continued."""
    if out is None or not is_store(out):
        return None
    with reading(out, "the record of the run"):
        name = read_record(out)["slide"]["backend"]
    return name if name in [row.name for row in BACKENDS] else None


def refuse_other_colours(out: Path | None, slide: Slide) -> None:
    """Say so where only the colours differ: by the fingerprint it would be another slide."""
    if out is None or not is_store(out):
        return
    with reading(out, "the record of the run"):
        recorded = read_record(out)["slide"].get("colours", AS_STORED)
    if recorded != slide.colours:
        what = f"the output was begun with colours {recorded}, not {slide.colours}"
        raise PlanMismatchError(what, out, "choose another output, or those colours")


def recorded_model(record: dict[str, Any], out: object) -> str | dict[str, Any]:
    """Return what `load_again` makes the recorded model from; says so where nothing does."""
    spec: str | dict[str, Any] | None = record["model"]["spec"]
    if spec is None:
        raise ModelLoadError(
            f"the model {record['model']['name']!r} was handed over in Python",
            out,
            "hand it over again: run(slide, model, out=...) continues the output",
        )
    return spec
