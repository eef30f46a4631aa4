"""Features that an encoder makes from a slide, as a configuration in CLAM's manner says it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import PlanMismatchError
from napari_wsi_heatmap.launch import complete
from napari_wsi_heatmap.mil.bags import refuse_length
from napari_wsi_heatmap.mil.clamtissue import find_tissue
from napari_wsi_heatmap.mil.featuresources import patch_of
from napari_wsi_heatmap.mil.from_slide import prepare_encoding
from napari_wsi_heatmap.mil.kept import bag_of, kept_by
from napari_wsi_heatmap.mil.patchgrid import patch_corners
from napari_wsi_heatmap.mil.yamlfile import ConfigError
from napari_wsi_heatmap.report import logging_notices

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.mil.bags import SlideFeatures
    from napari_wsi_heatmap.mil.clamtissue import Tissue
    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.mil.experiment import SlidePaths
    from napari_wsi_heatmap.mil.patchgrid import Box, Coords, PatchSize
    from napari_wsi_heatmap.mil.slidelist import Entry
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust
    from napari_wsi_heatmap.slides.base import Slide


@dataclass(frozen=True)
class Encoding:
    """Features that an encoder makes from the slide."""

    config: Config
    entry: Entry
    paths: SlidePaths
    encoder: HeatmapModel
    settings: dict[str, Any]
    trust: Trust = None
    progress: bool = False

    @property
    def overlaps(self) -> bool:
        """Whether a second pass with overlapping patches is asked for."""
        return self.config.heatmap["calc_heatmap"] and self.config.patching["overlap"] > 0

    @property
    def box(self) -> Box | None:
        """Region that the second pass keeps to."""
        return None if self.config.heatmap["use_roi"] is False else self.entry.box

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the features, as plain values."""
        settings = {k: v for k, v in self.settings.items() if k in ("precision", "resize", "icc")}
        return {
            "encoder": self.encoder.sha256,
            "patching": dict(self.config.patching) if self.overlaps else self._single,
            "target_img_size": self.config.encoder["target_img_size"],
            "segmentation": self.entry.segmentation.plain,
            "shifted": self.config.heatmap["use_center_shift"],
            "box": self.box if self.overlaps else None,
            "overlaps": self.overlaps,
            "settings": settings,
        }

    @property
    def _single(self) -> dict[str, Any]:
        return {k: v for k, v in self.config.patching.items() if k != "overlap"}

    def read(
        self, slide: Slide, tissue: Tissue, in_dim: int, *, overlapping: bool = False
    ) -> SlideFeatures:
        """Encode the patches on tissue; what an earlier run has left is not computed again.

        Raises
        ------
        FeatureError
            If the vectors are not of the length `in_dim`: before the slide is encoded.
        """
        overlap = self.config.patching["overlap"] if overlapping else 0.0
        patch = _needed(patch_of(self.config, slide, overlap), self.config)
        corners = patch_corners(
            slide,
            patch,
            tissue,
            self.entry.segmentation,
            shifted=self.config.heatmap["use_center_shift"],
            box=self.box if overlapping else None,
        )
        run = self._prepared(slide, corners, patch, self.paths.store(overlap))
        refuse_length(run.plan.dry.features or 0, in_dim, run.plan.model.name)
        with logging_notices([run.record]):
            complete(run, progress=self.progress)
        return bag_of(kept_by(run))

    def _prepared(self, slide: Slide, corners: Coords, patch: PatchSize, out: Path) -> Run:
        side, batch = self.config.encoder["target_img_size"], self.config.experiment["batch_size"]
        given = self.settings | {"patch_size": patch.size, "trust": self.trust}
        given |= {} if side is None else {"window": side}
        given |= {} if batch is None else {"batch_size": max(2, batch)}
        try:
            return prepare_encoding(slide, self.encoder, corners, out, **given)
        except PlanMismatchError:
            # Ours, in a folder of ours, and of no use any more.
            shutil.rmtree(out)
            return prepare_encoding(slide, self.encoder, corners, out, **given)

    def tissue(self, slide: Slide) -> Tissue:
        """Find the tissue as the slide's row of the process list says."""
        return find_tissue(slide, self.entry.segmentation)


def _needed(patch: PatchSize | None, config: Config) -> PatchSize:
    if patch is None:
        what = "patching_arguments.patch_size is missing"
        raise ConfigError(what, config.path, "say how large the patches are that are encoded")
    return patch
