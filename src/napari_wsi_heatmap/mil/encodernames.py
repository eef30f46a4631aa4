"""The encoder that a configuration names: CLAM's and TRIDENT's words for those that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from napari_wsi_heatmap.mil.yamlfile import ConfigError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.encodertable import ENCODERS

if TYPE_CHECKING:
    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust

ALSO: Final = {
    "resnet50_trunc": "resnet50-clam",
    "resnet50": "resnet50-clam",
    "uni_v1": "uni",
    "uni_v2": "uni2",
    "h-optimus-0": "hoptimus0",
    "h-optimus-1": "hoptimus1",
}
"""Names of CLAM and TRIDENT."""
OF_OTHERS: Final = (
    "conch_v1", "conch_v1_5", "conch_v15", "ctranspath", "phikon", "phikon_v2", "h0-mini",
    "hibou_l", "musk", "midnight12k", "keep", "openmidnight", "genbio-pathfm",
)  # fmt: skip
"""Encoders of CLAM and TRIDENT whose layers are code of their authors, not of timm."""


def load_encoder(config: Config, trust: Trust = None) -> HeatmapModel:
    """Load the encoder of a configuration: by name, or a model file.

    Raises
    ------
    ConfigError
        If there is no such encoder.
    ModelLoadError
        If its weights are not there, or do not fit.
    """
    asked: str = config.encoder["model_name"]
    name = ALSO.get(asked.lower(), asked.lower() if asked.lower() in ENCODERS else asked)
    if name in ENCODERS:
        return load_model(name, weights=_weights(config))
    if name.startswith("hf://"):
        return load_model(name, trust=trust)
    if not any(path.exists() for path in config.candidates(asked)):
        raise _unknown(asked, config)
    return load_model(config.find(asked, "model_name"), trust=trust)


def _unknown(asked: str, config: Config) -> ConfigError:
    if asked.lower() in OF_OTHERS:
        what = f"the layers of {asked} are its authors' own code, and not part of this package"
        do = (
            "make its features with CLAM or TRIDENT, then give features_dir and leave "
            "encoder_arguments out; or export it as TorchScript or .pt2 and give that file"
        )
        return ConfigError(what, config.path, do)
    known = ", ".join(dict.fromkeys([*ENCODERS, *ALSO]))
    do = f"there are {known}; or give a model file; or leave encoder_arguments out"
    return ConfigError(f"no encoder {asked!r}", config.path, do)


def _weights(config: Config) -> Any:
    given = config.encoder["weights"]
    if given is None or given.startswith("hf://"):
        return given
    return config.find(given, "encoder_arguments.weights")
