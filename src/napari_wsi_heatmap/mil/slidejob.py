"""One slide of an experiment: first scores, then pictures; each only if it is not up to date."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.mil.blockmap import read_scores, write_blockmap
from napari_wsi_heatmap.mil.encoding import Encoding
from napari_wsi_heatmap.mil.featuresources import FeatureFiles
from napari_wsi_heatmap.mil.maskpicture import write_mask
from napari_wsi_heatmap.mil.results import Result
from napari_wsi_heatmap.mil.scored import Scored
from napari_wsi_heatmap.mil.slidepictures import SlidePictures
from napari_wsi_heatmap.mil.sliderecord import SlideRecord, key_of, leave_other_labels
from napari_wsi_heatmap.slides import open_slide

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.mil.bags import SlideFeatures
    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.mil.experiment import SlidePaths
    from napari_wsi_heatmap.mil.slidelist import Entry
    from napari_wsi_heatmap.models.mil.bag import Bag
    from napari_wsi_heatmap.models.mil.model import MilModel
    from napari_wsi_heatmap.slides.base import Slide

_log = logging.getLogger(__name__)

SCORES, PICTURES = "scores", "pictures"


@dataclass(frozen=True)
class Outcome:
    """What became of one slide.

    Attributes
    ----------
    slide_id : str
    result : Result or None
        None if it failed.
    computed : tuple of str
        Steps that were done now; the others were up to date.
    error : str
        Why it failed.
    notices : tuple of str
    """

    slide_id: str
    result: Result | None = None
    computed: tuple[str, ...] = ()
    error: str = ""
    notices: tuple[str, ...] = ()


class SlideJob:
    """Works on one slide.

    Parameters
    ----------
    config : Config
    entry : Entry
    paths : SlidePaths
    mil : MilModel
    source : FeatureFiles or Encoding
    """

    def __init__(
        self,
        config: Config,
        entry: Entry,
        paths: SlidePaths,
        mil: MilModel,
        source: FeatureFiles | Encoding,
    ) -> None:
        self._config, self._entry, self._paths = config, entry, paths
        self._mil, self._source = mil, source
        self._notices: list[str] = []
        self._computed: list[str] = []

    def run(self) -> Outcome:
        """Do what is not up to date.

        Raises
        ------
        HeatmapError
            One line: what, where, what to do.
        """
        with open_slide(self._entry.slide) as slide:
            leave_other_labels(self._paths)
            record = SlideRecord.of(self._paths)
            key = self._score_key(slide)
            _log.debug("%s: %r, %s", self._entry.slide_id, slide, slide.path)
            if not record.current(SCORES, key):
                begun = time.perf_counter()
                self._paths.folder.mkdir(parents=True, exist_ok=True)
                files, more = self._score(slide)
                record.done(SCORES, key, files, **more)
                self._did(SCORES, files, begun)
            step = record.steps[SCORES]
            result = Result.from_json(step["result"])
            self._draw(slide, record, key, result)
        told = [*slide.warnings, *step["notices"], *self._notices]
        return Outcome(
            self._entry.slide_id, result, tuple(self._computed), notices=tuple(dict.fromkeys(told))
        )

    def _score_key(self, slide: Slide) -> str:
        return key_of({
            "slide": slide.fingerprint,
            "label": self._entry.label,
            "source": self._source.identity,
            "checkpoint": self._mil.sha256,
            "attention": self._mil.attention,
            "branch": self._config.model["branch"],
        })  # fmt: skip

    def _score(self, slide: Slide) -> tuple[list[Path], dict[str, Any]]:
        """Features, scores, result; returns the files written, and what else is to be kept."""
        files: list[Path] = []
        if isinstance(self._source, FeatureFiles):
            features = self._source.read(slide, self._mil.facts.in_dim)
            tissue = None
        else:
            tissue = self._source.tissue(slide)
            features = self._source.read(slide, tissue, self._mil.facts.in_dim)
        _log.debug(
            "%s: %d x %d features (%s), patches of %s px",
            *(self._entry.slide_id, *features.features.shape, features.layout),
            features.patch_size,
        )
        bag = self._mil(features.features, branch=self._config.model["branch"])
        scored = _scored(features, bag.patch_score, bag, slide)
        write_blockmap(self._paths.blockmap, scored)
        files.append(self._paths.blockmap)
        more: dict[str, Any] = {
            "result": Result.of(self._entry.slide_id, self._entry.label, bag).to_json(),
            "checkpoint": self._mil.sha256,
            "notices": list(features.notices),
            "drawn": {"patch_size": list(scored.patch_size), "weights": scored.weights},
        }
        if isinstance(self._source, Encoding) and tissue is not None:
            files.append(write_mask(slide, tissue, self._entry.segmentation, self._paths.mask))
            if self._source.overlaps:
                again = self._source.read(slide, tissue, self._mil.facts.in_dim, overlapping=True)
                finer = self._finer(slide, again, bag)
                path = self._finer_path(self._source)
                write_blockmap(path, finer)
                files.append(path)
        return files, more

    def _finer_path(self, source: Encoding) -> Path:
        return self._paths.overlapping(
            source.config.patching["overlap"], roi=source.box is not None
        )

    def _finer(self, slide: Slide, features: SlideFeatures, bag: Bag) -> Scored:
        """Scores of overlapping patches, by the branch that was drawn without overlap."""
        if self._mil.patchwise:
            scores = self._mil.patch_scores(features.features)
            scores = scores[:, min(bag.branch, scores.shape[1] - 1)]
        else:
            again = self._mil(features.features, branch=bag.branch)
            # Weights are shares of all patches, and these are more.
            times = len(again) / len(bag) if bag.drawn == "weights" else 1
            scores = again.patch_score * np.float32(times)
        return _scored(features, scores, bag, slide)

    def _draw(self, slide: Slide, record: SlideRecord, key: str, result: Result) -> None:
        pictures = SlidePictures(self._config, self._entry, self._paths, result)
        drawn_key = key_of({"scores": key, **pictures.identity})
        if record.current(PICTURES, drawn_key):
            return
        kept = record.steps[SCORES]["drawn"]
        coarse = _read(self._paths.blockmap, kept)
        finer = None
        if isinstance(self._source, Encoding) and self._source.overlaps:
            finer = _read(self._finer_path(self._source), kept)
        begun = time.perf_counter()
        files = pictures.write(slide, coarse, finer)
        self._notices += pictures.notices
        record.done(PICTURES, drawn_key, files)
        self._did(PICTURES, files, begun)

    def _did(self, step: str, files: list[Path], begun: float) -> None:
        self._computed.append(step)
        seconds = time.perf_counter() - begun
        names = ", ".join(path.name for path in files)
        _log.debug("%s: %s in %.1f s: %s", self._entry.slide_id, step, seconds, names)


def earlier_result(paths: SlidePaths, checkpoint: str) -> Result | None:
    """What an earlier run with the same checkpoint (its sha256) has said of a slide."""
    step = SlideRecord.of(paths).steps.get(SCORES, {})
    if step.get("checkpoint") != checkpoint:
        return None
    try:
        return Result.from_json(step["result"])
    except (LookupError, TypeError):
        return None


def _scored(
    features: SlideFeatures, scores: np.ndarray[Any, Any], bag: Bag, slide: Slide
) -> Scored:
    if features.coords is None:
        what = "nothing says where the patches lie"
        raise FeatureError(what, features.path, "give coords_path, or an .h5 with coords")
    if features.patch_size is None:
        what = "nothing says how large the patches are"
        raise FeatureError(what, features.path, "give patching_arguments.patch_size")
    height, width = slide.levels[0].shape
    corners = np.asarray(features.coords)
    far = np.asarray(((corners >= (height, width)) | (corners < 0)).any(axis=1))
    if far.any():
        what = f"{int(far.sum())} of {len(far)} patches lie beyond {slide.name}"
        raise FeatureError(what, features.path, "give the features of this slide")
    return Scored(features.coords, scores, features.patch_size, bag.drawn == "weights")


def _read(path: Path, kept: dict[str, Any]) -> Scored:
    coords, scores = read_scores(path)
    height, width = kept["patch_size"]
    return Scored(coords, scores, (height, width), kept["weights"])
