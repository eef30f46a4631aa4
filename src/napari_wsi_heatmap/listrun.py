"""A run over windows at given coordinates: crash-safe and continued like one over a grid."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from napari_wsi_heatmap.engine import Run
from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.folded import FOLDED, FoldedGrid, keep_places, places_in, show_places
from napari_wsi_heatmap.listplan import list_record, plan_list
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.again import load_again, spec_of
from napari_wsi_heatmap.models.settings import apart
from napari_wsi_heatmap.recorded import (
    recorded_backend,
    recorded_model,
    refuse_other_colours,
    settings_for,
)
from napari_wsi_heatmap.runfolder import folder_of, reading, refuse_foreign
from napari_wsi_heatmap.settings import RunSettings
from napari_wsi_heatmap.share import Share
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import AS_STORED, Slide

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from napari_wsi_heatmap.control import RunControl
    from napari_wsi_heatmap.heatmap import Piece
    from napari_wsi_heatmap.launch import PathLike, SlideLike
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust


class ListRun(Run):
    """A planned run over a list; ``piece.index`` counts along the list."""

    def pieces(self) -> Iterator[Piece]:
        """Compute what is pending; see `Run.pieces`."""
        placed = False
        with closing(cast("Generator[Piece]", super().pieces())) as pieces:
            for piece in pieces:
                placed = placed or self._keep_places()
                yield piece
        if self.out is not None and not self.growing.pending.any():
            self._keep_places()  # of a run that had nothing left to do
            show_places(self.out, self.record)

    def _keep_places(self) -> bool:
        grid = self.plan.grid
        assert isinstance(grid, FoldedGrid)
        if self.out is not None:
            keep_places(self.out, grid)
        return True


def prepare_list(
    slide: SlideLike,
    model: Any,
    coords: Any,
    *,
    patch_size: tuple[float, float] | None = None,
    out: PathLike | None = None,
    control: RunControl | None = None,
    trust: Trust = None,
    **settings: Any,
) -> ListRun:
    """Plan a run over given windows without starting it.

    Parameters
    ----------
    coords : (N, 2) array
        Top-left (y, x), level-0 pixels.
    patch_size : (float, float), optional
        See `plan_list`.
    slide, model, out, control, trust, **settings
        As for `napari_wsi_heatmap.run`; one model.

    Raises
    ------
    HeatmapError
        Every error that can be known beforehand.
    """
    of_model, settings = apart(settings)
    asked, path = RunSettings.of(settings), None if out is None else folder_of(out)
    if path is not None:
        refuse_foreign(path)
    loaded = load_model(model, trust=trust, **of_model)
    opened, ours = _opened(slide, asked, path)
    try:
        refuse_other_colours(path, opened)
        asked = replace(settings_for(path, asked), icc=asked.icc or opened.colours != AS_STORED)
        return _planned(opened, loaded, coords, asked, patch_size, path, control, ours=ours)
    except BaseException:
        if ours:
            opened.close()
        raise


def resume_list(
    path: Path,
    record: dict[str, Any],
    *,
    slide: SlideLike | None = None,
    model: Any = None,
    control: RunControl | None = None,
    trust: Trust = None,
    again: bool = False,
) -> ListRun:
    """Plan the rest of a run over given windows from its record; see `launch.resume`.

    Raises
    ------
    StoreError
        If it does not say what is left: `predict_windows` saves a list as a whole.
    """
    with reading(path, "the record of the run"):
        if not {FOLDED, "patch_size"} <= record["list"].keys():
            do = "begin it again with its coordinates"
            raise StoreError("a list that was saved as a whole is never continued", path, do)
        asked = RunSettings.of(record["settings"] | {"batch_size": record["plan"]["batch_size"]})
        size, mpp = record["list"]["patch_size"], record["slide"]["mpp"]
        slide = record["slide"]["path"] if slide is None else slide
        spec = recorded_model(record, path) if model is None else record["model"]["spec"]
    loaded, coords = load_again(spec, given=model, trust=trust), places_in(path)
    opened, ours = _opened(slide, asked, path, mpp)
    try:
        refuse_other_colours(path, opened)
        asked = replace(asked, icc=asked.icc or opened.colours != AS_STORED)
        pair = None if size is None else (float(size[0]), float(size[1]))
        return _planned(opened, loaded, coords, asked, pair, path, control, ours=ours, again=again)
    except BaseException:
        if ours:
            opened.close()
        raise


def _opened(
    slide: SlideLike, asked: RunSettings, path: Path | None, mpp: list[float] | None = None
) -> tuple[Slide, bool]:
    ours = not isinstance(slide, Slide)
    wishes: Any = {"backend": recorded_backend(path), "mpp": mpp} if ours else {}
    return open_slide(slide, icc=asked.icc, **wishes), ours


def _planned(
    slide: Slide,
    model: HeatmapModel,
    coords: Any,
    asked: RunSettings,
    patch_size: tuple[float, float] | None,
    path: Path | None,
    control: RunControl | None,
    *,
    ours: bool,
    again: bool = False,
) -> ListRun:
    cancelled = None if control is None else control.cancelled
    plan = plan_list(slide, model, coords, asked, patch_size=patch_size, cancelled=cancelled)
    share = Share(plan, path, spec_of(model), again=again)
    assert isinstance(plan.grid, FoldedGrid)
    share.output.record |= list_record(plan.grid.windows, patch_size) | {"number": 0}
    return ListRun([share], control, closes_slide=ours)
