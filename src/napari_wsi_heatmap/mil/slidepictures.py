"""Pictures of one slide: the heatmap, the slide without it, and patches that are sampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.mil.clamtissue import find_tissue
from napari_wsi_heatmap.mil.patchgrid import within
from napari_wsi_heatmap.mil.sampling import chosen_patches
from napari_wsi_heatmap.mil.tissueoutlines import outlines_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.mil.config import Config, Sample
    from napari_wsi_heatmap.mil.contours import Outline
    from napari_wsi_heatmap.mil.experiment import SlidePaths
    from napari_wsi_heatmap.mil.patchgrid import Box
    from napari_wsi_heatmap.mil.results import Result
    from napari_wsi_heatmap.mil.scored import Scored
    from napari_wsi_heatmap.mil.slidelist import Entry
    from napari_wsi_heatmap.slides.base import Slide

LARGEST_PATCH = 1024
"""px: side of the picture of a sampled patch at most; larger ones are read from a coarser level."""


class SlidePictures:
    """Draws what a configuration asks for.

    Parameters
    ----------
    config : Config
    entry : Entry
    paths : SlidePaths
    result : Result

    Attributes
    ----------
    notices : list of str
        What was found while drawing.
    """

    def __init__(self, config: Config, entry: Entry, paths: SlidePaths, result: Result) -> None:
        self._heatmap, self._samples = config.heatmap, config.samples
        # Patches that others have cut overlap as the configuration says; ours in the second pass.
        second = not config.encodes or config.heatmap["calc_heatmap"]
        self._overlap = config.patching["overlap"] if second else 0.0
        self._entry, self._paths, self._result = entry, paths, result
        self.notices: list[str] = []

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the pictures, beside the scores."""
        return {
            "heatmap": dict(self._heatmap),
            "samples": [vars(sample) for sample in self._samples],
            "overlap": self._overlap,
            "box": self._box,
            "segmentation": self._entry.segmentation.plain if self._heatmap["segment"] else None,
        }

    @property
    def _box(self) -> Box | None:
        return None if self._heatmap["use_roi"] is False else self._entry.box

    def write(self, slide: Slide, coarse: Scored, finer: Scored | None) -> list[Path]:
        """Write all of them.

        Parameters
        ----------
        coarse : Scored
            Patches side by side: these are ranked and sampled.
        finer : Scored, optional
            Overlapping ones, drawn instead.

        Returns
        -------
        list of Path
            The files written.
        """
        files = [self._write_heatmap(slide, coarse, finer)]
        if self._heatmap["save_orig"]:
            files.append(self._write_original(slide, coarse))
        for sample in self._samples:
            if sample.sample:
                files += self._write_sample(slide, coarse, sample)
        return files

    def _write_heatmap(self, slide: Slide, coarse: Scored, finer: Scored | None) -> Path:
        drawn = coarse if finer is None else finer
        percentiles, scores = self._shown(coarse, finer)
        threshold = self._heatmap["binary_thresh"]
        if self._heatmap["binarize"] and threshold < 0:
            told = f"binary_thresh -1 is 1 / {len(drawn)} patches: hardly any rank is below it"
            self.notices.append(told)
        return self._render(
            slide,
            drawn,
            scores,
            "heatmap",
            percentiles=percentiles,
            alpha=self._heatmap["alpha"],
            cmap=self._heatmap["cmap"],
            blur=self._heatmap["blur"],
            overlap=self._overlap,
            binarize=self._heatmap["binarize"],
            threshold=threshold,
            blank_canvas=self._heatmap["blank_canvas"],
            tissue=self._tissue(slide),
        )

    def _write_original(self, slide: Slide, coarse: Scored) -> Path:
        """The same part of the slide at the same size, without colours."""
        zeros = np.zeros(len(coarse))
        return self._render(slide, coarse, zeros, "original", alpha=0.0)

    def _render(
        self, slide: Slide, drawn: Scored, scores: NDArray[Any], kind: str, **options: Any
    ) -> Path:
        from napari_wsi_heatmap.mil.render import render_clam

        picture = render_clam(
            slide,
            drawn.coords,
            scores,
            patch_size=drawn.patch_size,
            vis_level=self._heatmap["vis_level"],
            custom_downsample=self._heatmap["custom_downsample"],
            roi=self._box,
            **options,
        )
        path = self._paths.picture(kind, self._heatmap["save_ext"])
        path.parent.mkdir(parents=True, exist_ok=True)
        return picture.save(path)

    def _shown(self, coarse: Scored, finer: Scored | None) -> tuple[bool, NDArray[Any]]:
        """Whether ranks are still to be taken, and scores, else 0…1."""
        from napari_wsi_heatmap.mil.display import to_display

        scores = (coarse if finer is None else finer).scores
        if self._heatmap["convert_to_percentiles"]:
            if finer is None or not self._heatmap["use_ref_scores"]:
                return True, scores
            return False, to_display(scores, reference=coarse.scores)
        if self._heatmap["display"] == "minmax":
            return False, to_display(scores, how="minmax")
        return False, about_uniform(coarse if finer is None else finer)

    def _tissue(self, slide: Slide) -> list[Outline] | None:
        if not self._heatmap["segment"]:
            return None
        tissue = find_tissue(slide, self._entry.segmentation)
        if tissue.notice is not None:
            self.notices.append(tissue.notice)
            return None
        return outlines_of(tissue)

    def _write_sample(self, slide: Slide, coarse: Scored, sample: Sample) -> list[Path]:
        index = np.arange(len(coarse))
        if self._box is not None:
            index = index[within(coarse.coords, self._box)]
        chosen = index[chosen_patches(coarse.scores[index], sample)]
        folder = self._paths.sampled(self._result.prediction, sample.name)
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for rank, one in enumerate(chosen.tolist()):
            y, x = (round(float(v)) for v in coarse.coords[one])
            name = self._paths.patch_name(rank, (y, x), float(coarse.scores[one]))
            files.append(write_patch(slide, (y, x), coarse.patch_size, folder / name))
        return files


def about_uniform(scored: Scored) -> NDArray[np.float64]:
    """Attention weights times the number of patches, halved: 0.5 is what all alike would have.

    Twice as much and more is 1.
    """
    from scipy.special import softmax

    scores = scored.scores.astype(np.float64)
    weights = scores if scored.weights else softmax(scores)
    shares: NDArray[np.float64] = np.clip(weights * len(weights) / 2, 0, 1)
    return shares


def write_patch(
    slide: Slide, corner: tuple[int, int], size: tuple[float, float], path: Path
) -> Path:
    """Write a patch at (y, x) as a picture, from the finest level at which it is not too large."""
    from PIL import Image

    fine = [
        number
        for number, level in enumerate(slide.levels)
        if max(s / d for s, d in zip(size, level.downsample, strict=True)) <= LARGEST_PATCH
    ]
    level = fine[0] if fine else len(slide.levels) - 1
    down = slide.levels[level].downsample
    y, x = (round(c / d) for c, d in zip(corner, down, strict=True))
    height, width = (max(1, round(s / d)) for s, d in zip(size, down, strict=True))
    pixels = slide.read_region(level, y, x, height, width)
    with written_at_once(path) as part:
        Image.fromarray(pixels).save(part, "PNG")
    return path
