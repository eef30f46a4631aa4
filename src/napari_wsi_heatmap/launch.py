"""The ways to start a run: iterate it, run it to its end, continue one, or ask for some windows.

>>> for piece in run("slide.svs", "hematoxylin", out="map.zarr"):
...     print(piece.positions, piece.values)
>>> heatmap = compute_heatmap("slide.svs", "hematoxylin")
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.engine import Run
from napari_wsi_heatmap.listmap import LIST
from napari_wsi_heatmap.listrun import resume_list
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.again import load_again, spec_of
from napari_wsi_heatmap.models.settings import apart
from napari_wsi_heatmap.progress import telling
from napari_wsi_heatmap.recorded import recorded_backend, refuse_other_colours
from napari_wsi_heatmap.report import logging_notices
from napari_wsi_heatmap.runfolder import folder_of, reading, refuse_foreign
from napari_wsi_heatmap.settings import RunSettings
from napari_wsi_heatmap.several import (
    names_of,
    outputs_of,
    plan_all,
    recorded_models,
    recorded_runs,
    refuse_other_slides,
)
from napari_wsi_heatmap.share import Share
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import AS_STORED, Slide
from napari_wsi_heatmap.windowlist import predict_list

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_wsi_heatmap.control import RunControl
    from napari_wsi_heatmap.heatmap import Heatmap, Piece
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust

    SlideLike = str | os.PathLike[str] | Slide
    PathLike = str | os.PathLike[str]


def run(
    slide: SlideLike,
    model: Any,
    *,
    out: PathLike | None = None,
    control: RunControl | None = None,
    trust: Trust = None,
    **settings: Any,
) -> Iterator[Piece]:
    """Run a model over a slide; yield its values as they are computed.

    Parameters
    ----------
    slide : path or Slide
        A path is opened, and closed when the run ends.
    model : str, HeatmapModel, nn.Module or callable, or a list of these
        See `load_model`. Several models see the same windows, each read once; ``piece.model``
        names the one that a piece is of.
    out : path, optional
        OME-Zarr store to write; for several models a folder, in which each has its own,
        ``<name>.zarr``. One that holds a run of the same plan is continued; one with another
        plan, or a folder of something else, is refused.
    control : RunControl, optional
        To pause or cancel from another thread.
    trust : str, sequence of str or bool, optional
        Consent to model files that are code: their sha256, or True; it is remembered.
    **settings
        Fields of `RunSettings`: window, stride, mpp, level, edge, blend, disagreement, tissue,
        tissue_min, roi, device, batch_size, precision, compile, resize, readers, memory, order,
        icc; and output, activation, tta and names, as for `load_model`.

    Yields
    ------
    Piece

    Raises
    ------
    HeatmapError
        One line: what, where, what to do. What was computed before is kept and can be resumed.

    Notes
    -----
    Memory bound: `memory` MB for regions and tiles, one batch on the device, and the map.
    """
    return _logging(prepare(slide, model, out=out, control=control, trust=trust, **settings))


def _logging(run: Run) -> Iterator[Piece]:
    with logging_notices([share.output.record for share in run.shares]):
        yield from run.pieces()


def compute_heatmap(
    slide: SlideLike,
    model: Any,
    *,
    out: PathLike | None = None,
    progress: bool = True,
    **settings: Any,
) -> Any:
    """Run a model over a slide to its end.

    Parameters
    ----------
    slide, model, out, **settings
        As for `run`.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Heatmap, or list of Heatmap
        A list if `model` is one.
    """
    planned = prepare(slide, model, out=out, **settings)
    with logging_notices([share.output.record for share in planned.shares]):
        heatmap = complete(planned, progress=progress)
    return planned.heatmaps if isinstance(model, (list, tuple)) else heatmap


def prepare(
    slide: SlideLike,
    model: Any,
    *,
    out: PathLike | None = None,
    control: RunControl | None = None,
    trust: Trust = None,
    again: bool = False,
    **settings: Any,
) -> Run:
    """Plan a run without starting it: every error that can be known beforehand comes here.

    Parameters
    ----------
    again : bool
        Compute windows that failed in an earlier session once more.
    slide, model, out, control, trust, **settings
        As for `run`.

    Returns
    -------
    Run
        ``run.pieces()`` iterates it, `complete` runs it to its end.
    """
    of_model, settings = apart(settings)
    asked, path = RunSettings.of(settings), None if out is None else folder_of(out)
    several = isinstance(model, (list, tuple))
    if path is not None and not several:
        refuse_foreign(path)
    each = model if several else [model]
    models = [load_model(one, trust=trust, **of_model) for one in each]
    outputs = outputs_of(path, names_of(models)) if several else [path]
    return _planned(slide, models, outputs, asked, control=control, again=again)


def _planned(
    slide: SlideLike,
    models: Sequence[HeatmapModel],
    outputs: Sequence[Path | None],
    asked: RunSettings,
    *,
    control: RunControl | None,
    again: bool = False,
    mpp: list[float] | None = None,
) -> Run:
    """Plan a run of models that write to `outputs`."""
    with _opened(slide, asked.icc, mpp, recorded_backend(outputs[0])) as (opened, ours):
        for path in outputs:
            refuse_other_colours(path, opened)
        # A slide that was handed over in sRGB must be so again when the run is resumed.
        asked = replace(asked, icc=asked.icc or opened.colours != AS_STORED)
        cancelled = None if control is None else control.cancelled
        plans = plan_all(opened, models, outputs, asked, cancelled)
        shares = [
            Share(plan, path, spec_of(model), again=again, name=name)
            for plan, path, model, name in zip(
                plans, outputs, models, names_of(models), strict=True
            )
        ]
        for number, share in enumerate(shares):
            share.output.record["number"] = number  # the first is what others are subtracted from
        return Run(shares, control, closes_slide=ours)


@contextmanager
def _opened(
    slide: SlideLike, icc: bool, mpp: list[float] | None = None, backend: str | None = None
) -> Iterator[tuple[Slide, bool]]:
    """Yield the slide, and whether it is ours to close: so it is if what follows fails."""
    ours = not isinstance(slide, Slide)
    wishes: Any = {"backend": backend, "mpp": mpp} if ours else {}
    opened = open_slide(slide, icc=icc, **wishes)
    try:
        yield opened, ours
    except BaseException:
        if ours:
            opened.close()
        raise


def complete(run: Run, *, progress: bool = True) -> Heatmap:
    """Iterate a run to its end, with a bar on stderr."""
    from tqdm import tqdm

    begun = run.progress
    # A run that cannot begin fails at once, in one line that no bar has broken.
    bar = tqdm(total=begun.planned, initial=begun.done, unit="win", disable=not progress, delay=0.2)
    with bar, telling(bar, lambda: run.notice or run.progress.shares):
        for piece in run.pieces():
            bar.update(len(piece))
    return run.heatmap


def resume(
    out: PathLike,
    *,
    slide: SlideLike | None = None,
    model: Any = None,
    control: RunControl | None = None,
    trust: Trust = None,
    again: bool = False,
) -> Run:
    """Plan the rest of a run that was stopped, from its record.

    Parameters
    ----------
    out : path
        The store, or the folder of a run of several models.
    slide, model : optional
        Where the slide lies now; the model, if it was handed over in Python, or where its file
        lies now.
    trust : str, sequence of str or bool, optional
        Consent to a model file that is code; what was given when the run began is remembered.
    again : bool
        Compute windows that failed once more.
    """
    runs = recorded_runs(folder_of(out))
    path, record = runs[0]
    if any(record.get("kind") == LIST for _, record in runs):
        rest = {"slide": slide, "model": model, "control": control, "trust": trust}
        return resume_list(path, record, again=again, **rest)
    with reading(path, "the record of the run"):
        refuse_other_slides(runs)
        size = record["plan"]["batch_size"] if len(runs) == 1 else None
        asked = RunSettings.of(record["settings"] | {"batch_size": size})
        slide = record["slide"]["path"] if slide is None else slide
        mpp = record["slide"]["mpp"]
        specs = recorded_models(runs) if model is None else [record["model"]["spec"]]
    models = [load_again(spec, given=model, trust=trust) for spec in specs]
    outputs = [path for path, _ in runs]
    return _planned(slide, models, outputs, asked, control=control, again=again, mpp=mpp)


def predict_windows(
    slide: SlideLike,
    model: Any,
    coords: Any,
    *,
    out: PathLike | None = None,
    trust: Trust = None,
    **settings: Any,
) -> NDArray[np.float32]:
    """Values of a model for given windows.

    Parameters
    ----------
    slide, model, **settings
        As for `run`.
    coords : (N, 2) array, or path
        Top-left corners (y, x), level-0 pixels; an .h5 of CLAM, TRIDENT, STAMP or WSInfer has them.
    out : path, optional
        Save positions, values and states there as well, for `open_heatmap`.

    Returns
    -------
    (N, C) or (N, C, h, w) float32
        In the order of `coords`; NaN for windows that cannot be read.
    """
    of_model, settings = apart(settings)
    asked, path = RunSettings.of(settings), None if out is None else folder_of(out)
    loaded = load_model(model, trust=trust, **of_model)
    with _opened(slide, asked.icc) as (opened, ours):
        values = predict_list(opened, loaded, coords, asked, path)
        if ours:
            opened.close()
    return values
