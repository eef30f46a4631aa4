"""Several models in one run: they see the same windows, each has an output of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import ModelLoadError, StoreError, StoreExistsError
from napari_wsi_heatmap.plan import plan_run
from napari_wsi_heatmap.recorded import recorded_model, settings_for
from napari_wsi_heatmap.runfolder import ENDING, is_store, read_record, refuse_foreign, stores_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from threading import Event

    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.plan import Plan
    from napari_wsi_heatmap.settings import RunSettings
    from napari_wsi_heatmap.slides.base import Slide


def names_of(models: Sequence[HeatmapModel]) -> list[str]:
    """Names that tell models apart: hematoxylin, hematoxylin-2.

    Raises
    ------
    ModelLoadError
        If there are no models.
    """
    if not models:
        raise ModelLoadError("no model", do="name at least one")
    taken: dict[str, str] = {}
    for model in models:
        name, number = model.name, 1
        while file_name(name) in taken:
            number += 1
            name = f"{model.name}-{number}"
        taken[file_name(name)] = name
    return list(taken.values())


def file_name(name: str) -> str:
    """A model's name as that of a file on any system, in small letters where these tell apart."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._").lower() or "model"


def outputs_of(out: Path | None, names: Sequence[str]) -> list[Path | None]:
    """Where each of several models writes: ``OUT/<name>.zarr``.

    Raises
    ------
    StoreExistsError
        If there is the output of one model, or no folder.
    """
    if out is None:
        return [None] * len(names)
    if is_store(out):
        raise StoreExistsError(
            "there is the output of one model", out, f"give {len(names)} models another folder"
        )
    if out.exists() and not out.is_dir():
        raise StoreExistsError("there is a file", out, "choose another output")
    outputs = [out / f"{file_name(name)}{ENDING}" for name in names]
    for path in outputs:
        refuse_foreign(path)
    return list(outputs)


def recorded_runs(out: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Outputs of a run of one or several models, with their records, in the models' order.

    Raises
    ------
    StoreError
        If there is none, or one is what a MIL model said: that is never half done.
    """
    paths = [] if is_store(out) or not out.is_dir() else stores_in(out)
    runs = [(path, read_record(path)) for path in paths or [out]]
    for path, record in runs:
        if "mil" in record:
            what, do = "it is what a MIL model said, as a whole", "resume the store of its features"
            raise StoreError(what, path, do)
    return runs


def recorded_models(runs: Sequence[tuple[Path, dict[str, Any]]]) -> list[Any]:
    """What `load_again` makes the recorded models from."""
    return [recorded_model(record, path) for path, record in runs]


def refuse_other_slides(runs: Sequence[tuple[Path, dict[str, Any]]]) -> None:
    """Refuse to continue outputs that lie in one folder by chance.

    Raises
    ------
    StoreError
    """
    slides = {record["slide"]["fingerprint"] for _, record in runs}
    if len(slides) > 1:
        raise StoreError(
            f"its {len(runs)} heatmaps are of {len(slides)} slides",
            runs[0][0].parent,
            "resume them one by one",
        )


def plan_all(
    slide: Slide,
    models: Sequence[HeatmapModel],
    outputs: Sequence[Path | None],
    asked: RunSettings,
    cancelled: Event | None = None,
) -> list[Plan]:
    """Plan a run of one or more models; tissue is looked for once.

    Raises
    ------
    SlideError, GridError, ModelError
        As `plan_run`, or if the models would see different windows.
    """
    plans: list[Plan] = []
    for model, out in zip(models, outputs, strict=True):
        settings = replace(settings_for(out, asked), icc=asked.icc)
        plans.append(plan_run(slide, model, settings, cancelled, plans[0] if plans else None))
    return plans
