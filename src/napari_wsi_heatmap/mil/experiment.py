"""Where everything of an experiment lies: the tree of CLAM's and MIL-Lab's pipelines.

::

    {raw_save_dir}/{experiment}/config.yaml
    {raw_save_dir}/{experiment}/{label}/{id}/{id}_blockmap.h5      scores and coordinates
                                             {id}_mask.jpg         tissue, where it was looked for
                                             {id}.zarr             features that were made here
                                             {id}.json             what decided the results
    {production_save_dir}/{experiment}/results.csv, failed.csv
    {production_save_dir}/{experiment}/{label}/{id}_heatmap.{ext}, {id}_original.{ext}
    {production_save_dir}/{experiment}/sampled_patches/label_{label}_pred_{prediction}/{sample}/
        {rank}_{id}_x_{x}_y_{y}_score_{score}.png
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import ExportError

if TYPE_CHECKING:
    from napari_wsi_heatmap.mil.config import Config

NO_CLASS = "none"
"""Prediction of a model without a classifier."""


@dataclass(frozen=True)
class Experiment:
    """The folders of one experiment."""

    raw: Path
    production: Path

    @classmethod
    def of(cls, config: Config) -> Experiment:
        """Folders that a configuration names, relative to the working directory."""
        name = config.experiment["save_exp_code"]
        raw, production = (
            Path(os.path.abspath(os.path.expanduser(config.experiment[key]))) / name
            for key in ("raw_save_dir", "production_save_dir")
        )
        return cls(raw, production)

    @property
    def config(self) -> Path:
        """Copy of the configuration."""
        return self.raw / "config.yaml"

    @property
    def results(self) -> Path:
        """Table of the slides that are done."""
        return self.production / "results.csv"

    @property
    def failed(self) -> Path:
        """Table of the slides that are not, with the reason."""
        return self.production / "failed.csv"

    def slide(self, label: str, slide_id: str) -> SlidePaths:
        """Paths of one slide."""
        return SlidePaths(self, label, slide_id)


@dataclass(frozen=True)
class SlidePaths:
    """Where the files of one slide lie."""

    experiment: Experiment
    label: str
    slide_id: str

    @property
    def folder(self) -> Path:
        """What is not a picture for people."""
        return self.experiment.raw / self.label / self.slide_id

    @property
    def blockmap(self) -> Path:
        """Scores and coordinates of the patches."""
        return self.folder / f"{self.slide_id}_blockmap.h5"

    def overlapping(self, overlap: float, *, roi: bool) -> Path:
        """Scores and coordinates of patches that overlap, as CLAM calls the file."""
        return self.folder / f"{self.slide_id}_{overlap:g}_roi_{roi}.h5"

    @property
    def mask(self) -> Path:
        """Picture of the tissue."""
        return self.folder / f"{self.slide_id}_mask.jpg"

    def store(self, overlap: float = 0) -> Path:
        """Features that were made here, of patches side by side or overlapping."""
        return self.folder / (
            f"{self.slide_id}_{overlap:g}.zarr" if overlap else f"{self.slide_id}.zarr"
        )

    @property
    def record(self) -> Path:
        """What decided the results."""
        return self.folder / f"{self.slide_id}.json"

    def picture(self, kind: str, extension: str) -> Path:
        """``heatmap`` or ``original``."""
        folder = self.experiment.production / self.label
        return folder / f"{self.slide_id}_{kind}.{extension}"

    def sampled(self, prediction: int | None, sample: str) -> Path:
        """Folder of one sample of patches."""
        shown = NO_CLASS if prediction is None else prediction
        folder = self.experiment.production / "sampled_patches"
        return folder / f"label_{self.label}_pred_{shown}" / sample

    def patch_name(self, rank: int, corner: tuple[int, int], score: float) -> str:
        """File name of a sampled patch at (y, x)."""
        y, x = corner
        return f"{rank}_{self.slide_id}_x_{x}_y_{y}_score_{score:.4f}.png"


def refuse_existing(path: Path) -> None:
    """Refuse to write over a file that somebody may have edited.

    Raises
    ------
    ExportError
        If there is something.
    """
    if os.path.lexists(path):
        raise ExportError("there is a file already", path, "choose another name, or remove it")
