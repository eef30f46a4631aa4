"""Encoder and MIL model in one run over a slide.

The encoder runs as any model does (`napari_wsi_heatmap.run`), so its features are kept in the
store, crash-safe, and a stopped run is continued. What the MIL model says comes live, and another
checkpoint on the same store is a matter of seconds, without the slide: `scoring.score_mil`.

>>> for piece in run_mil("slide.svs", "uni", "checkpoint.pt", out="slide.zarr"):
...     print(piece.positions, piece.scores, piece.so_far)
>>> result = compute_mil("slide.svs", "uni", "checkpoint.pt", out="slide.zarr")
>>> other = score_mil("slide.zarr", "other.pt")
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import FeatureError, HeatmapError, ModelLoadError
from napari_wsi_heatmap.mil.bags import refuse_length
from napari_wsi_heatmap.mil.live import MilRun
from napari_wsi_heatmap.mil.places import read_coords
from napari_wsi_heatmap.mil.scoring import loaded_mil
from napari_wsi_heatmap.report import logging_notices
from napari_wsi_heatmap.runfolder import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.control import RunControl
    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.launch import PathLike, SlideLike
    from napari_wsi_heatmap.mil.bags import SlideFeatures
    from napari_wsi_heatmap.mil.live import MilPiece
    from napari_wsi_heatmap.mil.result import MilResult
    from napari_wsi_heatmap.mil.scoring import MilLike
    from napari_wsi_heatmap.models.trust import Trust

    Sides = float | tuple[float, float]


def encode(
    slide: SlideLike,
    encoder: Any,
    coords: Any = None,
    out: PathLike | None = None,
    *,
    patch_size: Sides | None = None,
    progress: bool = False,
    control: RunControl | None = None,
    trust: Trust = None,
    **settings: Any,
) -> SlideFeatures:
    """Compute a feature vector of each window of a slide.

    Parameters
    ----------
    slide : path or Slide
    encoder : str, path, HeatmapModel, nn.Module or callable
        See `load_model`. One that returns (N, D) and names no features is taken to return these.
    coords : path, (N, 2) array or Places, optional
        Windows to encode: an .h5 with coordinates of CLAM or TRIDENT, or top-left (y, x) in
        level-0 pixels. Without them the windows are those of a run: a grid over the tissue.
    out : path, optional
        Store that keeps the features. One of the same plan is continued: what it holds is not
        computed again.
    patch_size : float or (float, float), optional
        With `coords`: (height, width) of a window at level 0, where the file does not say it. It
        is resized to the encoder's window. Without any the encoder's own window and mpp decide.
    progress : bool
        Show a bar on stderr.
    control, trust, **settings
        As for `napari_wsi_heatmap.run`.

    Returns
    -------
    SlideFeatures
        In the order of the grid, row by row, or of `coords`. Windows that could not be read, or
        whose features are not finite, are left out, which is noticed.

    Raises
    ------
    HeatmapError
        One line: what, where, what to do. What was computed before is kept and continued.
    """
    from napari_wsi_heatmap.launch import complete
    from napari_wsi_heatmap.mil.kept import bag_of, kept_by

    run = prepare_encoding(
        slide, encoder, coords, out,
        patch_size=patch_size, control=control, trust=trust, **settings,
    )  # fmt: skip
    with logging_notices([run.record]):
        complete(run, progress=progress)
    return bag_of(kept_by(run))


def prepare_encoding(
    slide: SlideLike,
    encoder: Any,
    coords: Any = None,
    out: PathLike | None = None,
    *,
    patch_size: Sides | None = None,
    control: RunControl | None = None,
    trust: Trust = None,
    **settings: Any,
) -> Run:
    """Plan what `encode` does, without starting it."""
    from napari_wsi_heatmap.launch import prepare
    from napari_wsi_heatmap.listrun import prepare_list
    from napari_wsi_heatmap.models import load_model
    from napari_wsi_heatmap.models.settings import apart
    from napari_wsi_heatmap.models.vectors import as_encoder

    of_model, settings = apart(settings)
    model = as_encoder(load_model(encoder, trust=trust, **of_model))
    if coords is not None:
        places = read_coords(coords, patch_size=patch_size)
        if places.level is not None and "mpp" not in settings:
            settings = {"level": places.level} | settings
        run = prepare_list(
            *(slide, model, places.coords),
            patch_size=places.patch_size, out=out, control=control, **settings,
        )  # fmt: skip
        run.record["notices"] = [*run.record["notices"], *places.notices]
        return run
    if patch_size is not None:
        what = "patch_size is the size of windows at coordinates, and there are none"
        raise FeatureError(what, do="give coords, or window= and mpp= instead")
    return prepare(slide, model, out=out, control=control, **settings)


def prepare_mil(
    slide: SlideLike,
    encoder: Any,
    mil: MilLike,
    *,
    out: PathLike | None = None,
    coords: Any = None,
    patch_size: Sides | None = None,
    branch: int | None = None,
    attention: str | None = None,
    control: RunControl | None = None,
    trust: Trust = None,
    **settings: Any,
) -> MilRun:
    """Plan encoder and MIL in one run, without starting it: errors that can be known come here.

    Parameters
    ----------
    slide, encoder, out, coords, patch_size, control, trust, **settings
        As for `encode`.
    mil : path or MilModel
        See `load_mil`.
    branch : int, optional
        Class whose attention is drawn, where each has its own; the predicted one unless given.
    attention : str, optional
        Definition of the score, where the type has several.

    Returns
    -------
    MilRun
        ``pieces()`` iterates it; ``result`` is there at the end.

    Raises
    ------
    FeatureError
        If the encoder's vectors are of another length than those the checkpoint was trained on.
    HeatmapError
        As for `run`.
    """
    mil = loaded_mil(mil, str(settings.get("device", "auto")))
    run = prepare_encoding(
        slide, encoder, coords, out,
        patch_size=patch_size, control=control, trust=trust, **settings,
    )  # fmt: skip
    try:
        refuse_length(run.plan.dry.features or 0, mil.facts.in_dim, run.plan.model.name)
        planned = MilRun(run, mil, branch=branch, attention=attention)
    except BaseException:
        if isinstance(slide, (str, os.PathLike)):
            run.plan.slide.close()
        raise
    run.record["scored_by"] = {
        "checkpoint": os.path.abspath(mil.path),
        "sha256": mil.sha256,
        "branch": branch,
        "attention": planned.attention,
    }
    return planned


def scored_again(run: Run) -> MilRun:
    """The rest of a MIL run, of its encoder's rest that `launch.resume` has planned.

    Raises
    ------
    ModelLoadError
        If the checkpoint is not where it was, or another one is.
    """
    with reading(run.out or Path(), "the record of the run"):
        wanted = dict(run.record["scored_by"])
        path, sha256 = Path(wanted["checkpoint"]), str(wanted["sha256"])
    mil = loaded_mil(path, run.plan.settings.device)
    if mil.sha256 != sha256:
        do = "put the old one back, or give run --mil and the same --out"
        raise ModelLoadError("the checkpoint is another one now", path, do)
    return MilRun(run, mil, branch=wanted["branch"], attention=wanted["attention"])


def run_mil(
    slide: SlideLike, encoder: Any, mil: MilLike, *, out: PathLike | None = None, **settings: Any
) -> Iterator[MilPiece]:
    """Encode a slide and score it, live.

    Parameters
    ----------
    slide, encoder, mil, out, **settings
        As for `prepare_mil`.

    Yields
    ------
    MilPiece
        Some windows, with their raw scores where these depend on the patch alone, and what the
        model says of the bag so far. The last one holds the result: the whole bag, scored at once.
    """
    return _logging(prepare_mil(slide, encoder, mil, out=out, **settings))


def _logging(run: MilRun) -> Iterator[MilPiece]:
    with logging_notices([run.record]), closing(run.pieces()) as pieces:
        yield from pieces


def compute_mil(
    slide: SlideLike,
    encoder: Any,
    mil: MilLike,
    *,
    out: PathLike | None = None,
    progress: bool = True,
    **settings: Any,
) -> MilResult:
    """Encode a slide and score it, to the end.

    Parameters
    ----------
    slide, encoder, mil, out, **settings
        As for `prepare_mil`.
    progress : bool
        Show a bar on stderr, with the prediction so far.

    Returns
    -------
    MilResult
        Saved in ``OUT.zarr/mil`` as well, if there is an output.

    Raises
    ------
    HeatmapError
        As for `prepare_mil`; also if the run was cancelled before its end.
    """
    planned = prepare_mil(slide, encoder, mil, out=out, **settings)
    with logging_notices([planned.record]):
        complete_mil(planned, progress=progress)
    if planned.result is None:
        do = "run it again with the same output to continue it"
        raise HeatmapError("the run was cancelled before its end", planned.out, do)
    return planned.result


def complete_mil(run: MilRun, *, progress: bool = True) -> MilResult | None:
    """Iterate a MIL run to its end, with a bar on stderr; None if it was cancelled."""
    from tqdm import tqdm

    from napari_wsi_heatmap.progress import telling

    begun = run.run.progress
    bar = tqdm(total=begun.planned, initial=begun.done, unit="win", disable=not progress, delay=0.2)
    with bar, telling(bar, _telling(run)), closing(run.pieces()) as pieces:
        earlier = begun.done
        for piece in pieces:
            # What an earlier session encoded is in the bar already.
            known = min(earlier, len(piece))
            bar.update(len(piece) - known)
            earlier -= known
    return run.result


def _telling(run: MilRun) -> Callable[[], str]:
    def notice() -> str:
        return run.run.notice or (str(run.so_far) if run.so_far else "")

    return notice
