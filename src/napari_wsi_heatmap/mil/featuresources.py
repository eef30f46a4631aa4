"""Where the features of a slide come from: files that others made, or the slide itself."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.mil.patchgrid import PatchSize
from napari_wsi_heatmap.mil.yamlfile import ConfigError

if TYPE_CHECKING:
    from napari_wsi_heatmap.mil.bags import SlideFeatures
    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.mil.slidelist import Entry
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
        vectors = self._find("features", self.entry.features, VECTORS, ())
        if self.entry.coords is None and vectors.suffix != ".pt":
            return vectors, None
        return vectors, self._find("coordinates", self.entry.coords, PLACES, (vectors.parent,))

    def _find(
        self, what: str, given: str | None, patterns: tuple[str, ...], beside: tuple[Path, ...]
    ) -> Path:
        tried = self._tried(given, patterns, beside)
        for path in tried:
            # Nothing else: a pipe would be waited for.
            if path.is_file() or path.is_dir():
                return path
        told = ", ".join(map(str, tried[:6]))
        do = "correct features_dir, or the columns features_path and coords_path"
        raise ConfigError(f"{what} of {self.entry.slide_id} not found", told, do)

    def _tried(
        self, given: str | None, patterns: tuple[str, ...], beside: tuple[Path, ...]
    ) -> list[Path]:
        config = self.config
        data = config.data["data_dir"]
        folders = list(data.values() if isinstance(data, dict) else data)
        home = config.data["features_dir"]
        if given is not None:
            return config.candidates(given, home, *folders)
        homes = [*beside, *config.candidates(home, *folders)]
        found = (
            pattern.format(folder=one, id=self.entry.slide_id)
            for one in homes
            for pattern in patterns
            # Beside a folder that is misspelt there may be features of another kind.
            if "/../" not in pattern or one.is_dir()
        )
        return list(dict.fromkeys(Path(os.path.normpath(one)) for one in found))

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


def patch_of(config: Config, slide: Slide, overlap: float = 0.0) -> PatchSize | None:
    """Size of a patch as a configuration says it; None if it does not."""
    side, more = config.patching["patch_size"], config.patching["custom_downsample"]
    if side is None:
        return None
    return PatchSize.of(slide, side * more, config.patching["patch_level"], overlap)


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
