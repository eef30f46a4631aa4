"""The ways to start a run: iterate it, run it to its end, continue one, or ask for some windows.

>>> for piece in run("slide.svs", "hematoxylin", out="map.zarr"):
...     print(piece.positions, piece.values)
>>> heatmap = compute_heatmap("slide.svs", "hematoxylin")
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.engine import Run
from napari_wsi_heatmap.errors import ModelLoadError, StoreError
from napari_wsi_heatmap.listmap import LIST
from napari_wsi_heatmap.models import BUILTIN, load_model
from napari_wsi_heatmap.plan import plan_run
from napari_wsi_heatmap.runfolder import is_store, read_record
from napari_wsi_heatmap.settings import RunSettings
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.store import HeatmapStore
from napari_wsi_heatmap.windowlist import predict_list

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from napari_wsi_heatmap.control import RunControl
    from napari_wsi_heatmap.heatmap import Heatmap, Piece
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.slides.base import Slide

    SlideLike = str | os.PathLike[str] | Slide
    PathLike = str | os.PathLike[str]


def run(
    slide: SlideLike,
    model: Any,
    *,
    out: PathLike | None = None,
    control: RunControl | None = None,
    trust: str | bool | None = None,
    **settings: Any,
) -> Iterator[Piece]:
    """Run a model over a slide; yield its values as they are computed.

    Parameters
    ----------
    slide : path or Slide
    model : str, HeatmapModel, nn.Module or callable
        See `load_model`.
    out : path, optional
        OME-Zarr store to write. One that holds a run of the same plan is continued; one with
        another plan, or a folder of something else, is refused.
    control : RunControl, optional
        To pause or cancel from another thread.
    trust : str or bool, optional
        Consent to model formats that are code.
    **settings
        Fields of `RunSettings`: window, stride, mpp, level, edge, tissue, tissue_min, roi,
        device, batch_size, precision, resize, readers, memory, order.

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
    return prepare(slide, model, out=out, control=control, trust=trust, **settings).pieces()


def compute_heatmap(
    slide: SlideLike,
    model: Any,
    *,
    out: PathLike | None = None,
    progress: bool = True,
    **settings: Any,
) -> Heatmap:
    """Run a model over a slide to its end.

    Parameters
    ----------
    slide, model, out, **settings
        As for `run`.
    progress : bool
        Show a bar on stderr.
    """
    return complete(prepare(slide, model, out=out, **settings), progress=progress)


def prepare(
    slide: SlideLike,
    model: Any,
    *,
    out: PathLike | None = None,
    control: RunControl | None = None,
    trust: str | bool | None = None,
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
    if isinstance(model, (list, tuple)):
        raise ModelLoadError(
            f"{len(model)} models in one run are not supported yet", do="run them one by one"
        )
    path = None if out is None else Path(out)
    resolved = _settings_for(path, RunSettings.of(settings))
    loaded = load_model(model, trust=trust)
    plan = plan_run(open_slide(slide), loaded, resolved)
    return Run(plan, path, control, model_spec=_spec_of(loaded), again=again)


def complete(run: Run, *, progress: bool = True) -> Heatmap:
    """Iterate a run to its end, with a bar on stderr."""
    from tqdm import tqdm

    begun = run.progress
    # A run that cannot begin fails at once, in one line that no bar has broken.
    bar = tqdm(total=begun.planned, initial=begun.done, unit="win", disable=not progress, delay=0.2)
    with bar:
        for piece in run.pieces():
            bar.update(len(piece))
    return run.heatmap


def resume(
    out: PathLike,
    *,
    slide: SlideLike | None = None,
    model: Any = None,
    control: RunControl | None = None,
    again: bool = False,
) -> Run:
    """Plan the rest of a run that was stopped, from its record.

    Parameters
    ----------
    out : path
        The store.
    slide, model : optional
        Where the slide lies now; the model, if it was handed over in Python.
    again : bool
        Compute windows that failed once more.
    """
    record = HeatmapStore.open(Path(out)).read_record()
    if record.get("kind") == LIST:
        raise StoreError("a list of windows is never continued", out, "begin a new output")
    settings = record["settings"] | {"batch_size": record["plan"]["batch_size"]}
    return prepare(
        slide or record["slide"]["path"],
        model or _recorded_model(record, out),
        out=out,
        control=control,
        again=again,
        **settings,
    )


def predict_windows(
    slide: SlideLike,
    model: Any,
    coords: Any,
    *,
    out: PathLike | None = None,
    trust: str | bool | None = None,
    **settings: Any,
) -> NDArray[np.float32]:
    """Values of a model for given windows.

    Parameters
    ----------
    slide, model, **settings
        As for `run`.
    coords : (N, 2) array
        Top-left corners (y, x), level-0 pixels.
    out : path, optional
        Save positions, values and states there as well, for `open_heatmap`.

    Returns
    -------
    (N, C) or (N, C, h, w) float32
        In the order of `coords`; NaN for windows that cannot be read.
    """
    loaded = load_model(model, trust=trust)
    path = None if out is None else Path(out)
    return predict_list(open_slide(slide), loaded, coords, RunSettings.of(settings), path)


def _settings_for(out: Path | None, settings: RunSettings) -> RunSettings:
    """Continue an output with the batch size it was begun with: it decides the last bits."""
    if out is None or settings.batch_size is not None or not is_store(out):
        return settings
    return replace(settings, batch_size=read_record(out).get("plan", {}).get("batch_size"))


def _spec_of(model: HeatmapModel) -> str | None:
    if model.name in BUILTIN and load_model(model.name, mpp=model.mpp).sha256 == model.sha256:
        return model.name
    return None


def _recorded_model(record: dict[str, Any], out: object) -> str:
    spec: str | None = record["model"]["spec"]
    if spec is None:
        raise ModelLoadError(
            f"the model {record['model']['name']!r} was handed over in Python",
            out,
            "hand it over again: run(slide, model, out=...) continues the output",
        )
    return spec
