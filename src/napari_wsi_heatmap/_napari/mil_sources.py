"""Where a bag comes from: features of a layer, of a file, or of an encoder that runs now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_wsi_heatmap._napari.mil_layer import ScoredSlide
from napari_wsi_heatmap._napari.mil_words import names_of_config
from napari_wsi_heatmap._napari.polite import polite_torch
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_wsi_heatmap._napari.slide_source import SlideSource
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.mil.result import MilResult
    from napari_wsi_heatmap.models.mil.model import MilModel

CONFIGS: Final = (".yaml", ".yml")
STORE_FILES: Final = ("run.json", "zarr.json")
"""What stands for the folder of a store in a dialog that chooses files."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A MIL model, and what its classes are called, if that is known."""

    mil: MilModel
    names: dict[int, str]


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint, or the one that a configuration of the MIL pipeline names.

    Raises
    ------
    HeatmapError
        If it cannot be loaded; says why.
    """
    from napari_wsi_heatmap.models.mil import load_mil

    if path.suffix.lower() not in CONFIGS:
        return Checkpoint(load_mil(path), {})
    from napari_wsi_heatmap.mil.config import read_config
    from napari_wsi_heatmap.mil.pipeline import CLAIMS

    config = read_config(path)
    claims = {name: config.model[name] for name in CLAIMS}
    mil = load_mil(config.find(config.model["ckpt_path"], "ckpt_path"), **claims)
    return Checkpoint(mil, names_of_config(config.data["label_dict"]))


def as_features(path: Path) -> Path:
    """The store of a file within one; any other path as it is."""
    return path.parent if path.name in STORE_FILES else path


def feature_layers(viewer: ViewerModel) -> list[Layer]:
    """Layers of heatmaps with features, the topmost first."""
    return [layer for layer in reversed(viewer.layers) if _has_features(layer)]


def _has_features(layer: Layer) -> bool:
    heatmap: Heatmap | None = layer.metadata.get("heatmap")
    try:
        return heatmap is not None and heatmap.features is not None
    except HeatmapError:
        return False  # a store that cannot be read is told of elsewhere


def score_layer(layer: Layer, mil: MilModel, attention: str | None) -> ScoredSlide:
    """Score the features of a heatmap's layer; slow.

    Raises
    ------
    HeatmapError
        If they cannot be scored.
    """
    from napari_wsi_heatmap.mil.scoring import score_mil
    from napari_wsi_heatmap.mil.shown import features_of, laid

    heatmap = layer.metadata["heatmap"]
    with polite_torch():
        features = features_of(heatmap, mil.facts.in_dim)
        result = score_mil(features, mil, attention=attention, save=False)
    result, trouble = _kept(result, heatmap.path)
    return ScoredSlide(result, laid(result, heatmap), layer, trouble)


def _kept(result: MilResult, store: Path | None) -> tuple[MilResult, str]:
    """Keep a result in the store of its features, or say why it is not."""
    if store is None:
        return result, ""
    try:
        return result.save(store), ""
    except (HeatmapError, OSError) as error:
        return result, f"The result is not kept in the store: {error}"


def score_file(
    path: Path, over: Layer, source: SlideSource, mil: MilModel, attention: str | None
) -> ScoredSlide:
    """Score the features of a file, or of a store, on a slide; slow.

    Raises
    ------
    HeatmapError
        If they cannot be read or scored, or are of another slide.
    """
    slide = source.open()
    try:
        return _on_slide(path, over, slide, mil, attention)
    finally:
        if slide is not source.slide:
            slide.close()


def _on_slide(
    path: Path, over: Layer, slide: Any, mil: MilModel, attention: str | None
) -> ScoredSlide:
    from napari_wsi_heatmap.heatmap import open_heatmap
    from napari_wsi_heatmap.mil.bags import read_features
    from napari_wsi_heatmap.mil.scoring import score_mil
    from napari_wsi_heatmap.mil.shown import laid, refuse_other_slide

    on = slide
    if path.is_dir():
        on = open_heatmap(path)
        refuse_other_slide(on, slide)
    with polite_torch():
        features = read_features(path, mpp=slide.mpp, in_dim=mil.facts.in_dim)
        result = score_mil(features, mil, attention=attention, save=False)
    result, trouble = _kept(result, path if path.is_dir() else None)
    return ScoredSlide(result, laid(result, on), over, trouble)
