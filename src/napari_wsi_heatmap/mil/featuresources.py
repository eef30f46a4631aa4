"""Where the features of a slide come from: files that others made, or the slide itself."""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import PlanMismatchError
from napari_wsi_heatmap.mil.clamtissue import find_tissue
from napari_wsi_heatmap.mil.patchgrid import PatchSize, patch_corners
from napari_wsi_heatmap.mil.yamlfile import ConfigError

if TYPE_CHECKING:
    from napari_wsi_heatmap.mil.bags import SlideFeatures
    from napari_wsi_heatmap.mil.clamtissue import Tissue
    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.mil.experiment import SlidePaths
    from napari_wsi_heatmap.mil.patchgrid import Box
    from napari_wsi_heatmap.mil.slidelist import Entry
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust
    from napari_wsi_heatmap.slides.base import Slide

_log = logging.getLogger(__name__)

VECTORS = (
    "{folder}/{id}.pt", "{folder}/../pt_files/{id}.pt", "{folder}/pt_files/{id}.pt",
    "{folder}/{id}.h5", "{folder}/h5_files/{id}.h5", "{folder}/../h5_files/{id}.h5",
)  # fmt: skip
"""Where the features of a slide are looked for: in features_dir, and in CLAM's folders about it."""
PLACES = (
    "{folder}/{id}.h5", "{folder}/h5_files/{id}.h5", "{folder}/../h5_files/{id}.h5",
    "{folder}/../patches/{id}.h5", "{folder}/patches/{id}.h5",
)  # fmt: skip
"""The same for coordinates."""
BLOCK = 1 << 22
"""Bytes that are hashed at once."""


@dataclass(frozen=True)
class FeatureFiles:
    """Features that lie in files."""

    config: Config
    entry: Entry

    @cached_property
    def paths(self) -> tuple[Path, Path | None]:
        """Files of the features, and of the coordinates if these are others.

        Raises
        ------
        ConfigError
            If they are not found, listing what was tried.
        """
        vectors = self._find("features", self.entry.features, VECTORS)
        if self.entry.coords is None and vectors.suffix == ".h5":
            return vectors, None
        return vectors, self._find("coordinates", self.entry.coords, PLACES)

    def _find(self, what: str, given: str | None, patterns: tuple[str, ...]) -> Path:
        tried = list(self._tried(given, patterns))
        for path in tried:
            if path.exists():
                return path
        told = ", ".join(map(str, tried[:6]))
        do = "correct features_dir, or the columns features_path and coords_path"
        raise ConfigError(f"{what} of {self.entry.slide_id} not found", told, do)

    def _tried(self, given: str | None, patterns: tuple[str, ...]) -> list[Path]:
        config = self.config
        data = config.data["data_dir"]
        folders = list(data.values() if isinstance(data, dict) else data)
        home = config.data["features_dir"]
        if given is not None:
            return config.candidates(given, home, *folders)
        homes = config.candidates(home, *folders)
        found = (p.format(folder=one, id=self.entry.slide_id) for one in homes for p in patterns)
        return list(dict.fromkeys(Path(one) for one in found))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the features, as plain values."""
        vectors, coords = self.paths
        size = {
            key: self.config.patching[key]
            for key in ("patch_size", "patch_level", "custom_downsample")
        }
        return {
            "features": file_sha256(vectors),
            "coords": coords and file_sha256(coords),
            "patching": size,
        }

    def read(self, slide: Slide, in_dim: int) -> SlideFeatures:
        """Read them.

        Raises
        ------
        FeatureError
            If they do not belong together, or to the model.
        """
        from napari_wsi_heatmap.mil.bags import read_features

        vectors, coords = self.paths
        size = patch_of(self.config, slide)
        _log.debug("%s: features of %s, coordinates of %s", self.entry.slide_id, vectors, coords)
        return read_features(
            vectors,
            coords=coords,
            patch_size=None if size is None else size.size,
            mpp=slide.mpp,
            in_dim=in_dim,
        )


@dataclass(frozen=True)
class Encoding:
    """Features that an encoder makes from the slide."""

    config: Config
    entry: Entry
    paths: SlidePaths
    encoder: HeatmapModel
    settings: dict[str, Any]
    trust: Trust = None

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

    def read(self, slide: Slide, tissue: Tissue, *, overlapping: bool = False) -> SlideFeatures:
        """Encode the patches on tissue; what an earlier run has left is not computed again."""
        from napari_wsi_heatmap.mil.from_slide import encode

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
        side = self.config.encoder["target_img_size"]
        window = {} if side is None else {"window": side}
        batch = self.config.experiment["batch_size"]
        given = self.settings | window | ({} if batch is None else {"batch_size": max(2, batch)})
        out = self.paths.store(overlap)
        given |= {"patch_size": patch.size, "trust": self.trust}
        try:
            return encode(slide, self.encoder, corners, out, **given)
        except PlanMismatchError:
            # Ours, in a folder of ours, and of no use any more.
            shutil.rmtree(out)
            return encode(slide, self.encoder, corners, out, **given)

    def tissue(self, slide: Slide) -> Tissue:
        """Find the tissue as the slide's row of the process list says."""
        return find_tissue(slide, self.entry.segmentation)


def patch_of(config: Config, slide: Slide, overlap: float = 0.0) -> PatchSize | None:
    """Size of a patch as a configuration says it; None if it does not."""
    side, more = config.patching["patch_size"], config.patching["custom_downsample"]
    if side is None:
        return None
    return PatchSize.of(slide, side * more, config.patching["patch_level"], overlap)


def _needed(patch: PatchSize | None, config: Config) -> PatchSize:
    if patch is None:
        what = "patching_arguments.patch_size is missing"
        raise ConfigError(what, config.path, "say how large the patches are that are encoded")
    return patch


def file_sha256(path: Path) -> str:
    """Hex digest of a file; of a folder of its files, in the order of their names.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.is_dir():
            for file in sorted(one for one in path.rglob("*") if one.is_file()):
                digest.update(f"{file.relative_to(path)}\0{file_sha256(file)}\n".encode())
            return digest.hexdigest()
        with path.open("rb") as opened:
            while block := opened.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}", path, "get access") from error
    return digest.hexdigest()
