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
    "gigapath": "gigapath",
    "h-optimus-0": "hoptimus0",
    "h-optimus-1": "hoptimus1",
}
"""Names of CLAM and TRIDENT."""


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
        known = ", ".join([*ENCODERS, *ALSO])
        do = f"there are {known}; or give a model file, or features_dir instead"
        raise ConfigError(f"no encoder {asked!r}", config.path, do)
    return load_model(config.find(asked, "model_name"), trust=trust)


def _weights(config: Config) -> Any:
    given = config.encoder["weights"]
    if given is None or given.startswith("hf://"):
        return given
    return config.find(given, "encoder_arguments.weights")
