"""Models of the WSInfer zoo: a folder or a Hugging Face repository of config.json and weights.

The weights are TorchScript, which is code and needs consent; where there is none, model.safetensors
of the architecture that the config names, which is data.

WSInfer reads patches at level 0 and resizes them with Pillow. So does a run, from the coarsest
level that is not coarser than the model asks for: where that is level 0, probabilities are
WSInfer's to 1e-6; where it is another, it is faster and they differ as the levels do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.filemodel import FileModel, Source
from napari_wsi_heatmap.models.hub import HubRepository, is_hub
from napari_wsi_heatmap.models.normalize import Normalize
from napari_wsi_heatmap.models.sniff import TORCHSCRIPT
from napari_wsi_heatmap.models.statedict import load_arch
from napari_wsi_heatmap.models.torchscript import script_of
from napari_wsi_heatmap.models.trust import read_code
from napari_wsi_heatmap.models.zooconfig import ZooConfig, read_config

if TYPE_CHECKING:
    from napari_wsi_heatmap.models.trust import Trust

CONFIG: Final = "config.json"
WEIGHTS: Final = "torchscript_model.pt"
DATA: Final = "model.safetensors"


def zoo_model(spec: Any, *, trust: Trust = None, **settings: Any) -> FileModel:
    """Make a model of a WSInfer zoo directory or repository.

    Parameters
    ----------
    spec : path or str
        A folder that holds `config.json` and one TorchScript file, or else model.safetensors; or
        ``hf://owner/name@<40 hex digits>``.
    trust : str, sequence of str or bool, optional
        Consent to the TorchScript file, which is code.
    **settings
        Attributes of `HeatmapModel`, checked; they win over what the config says.

    Returns
    -------
    FileModel
        Its outputs are probabilities: softmax of several logits, sigmoid of one, as WSInfer has it.

    Raises
    ------
    ModelLoadError
        If a file is missing or the config cannot be.
    UntrustedModelError
        Without consent.
    """
    address, name, config, weights = (
        _from_hub(spec) if is_hub(spec) else _from_folder(Path(spec).expanduser())
    )
    transform = None if config.mean is None else Normalize(config.mean, config.std or ())
    stated = {
        "window": (config.size, config.size),
        "mpp": config.mpp,
        "names": config.names,
        "activation": config.activation,
        "transform": transform,
    }
    model = _made(weights, config, trust, stated | settings)
    model.name = name
    model.made_from(address, transform)
    return model


def _made(weights: Path, config: ZooConfig, trust: Trust, settings: dict[str, Any]) -> FileModel:
    if weights.name == DATA:
        return load_arch(weights, config.architecture, **settings)
    code = read_code(weights, TORCHSCRIPT, trust)
    return FileModel(script_of(code), Source(code.path, code.sha256), **settings)


Found = tuple[str | Path, str, ZooConfig, Path]
"""Address, name, config and file of weights."""


def _from_hub(spec: str) -> Found:
    repository = HubRepository.of(spec)
    config = read_config(repository.fetched(CONFIG))
    data = repository.cached(DATA) if config.architecture else None
    weights = repository.cached(WEIGHTS) or data or repository.fetched(WEIGHTS)
    return spec, repository.name, config, weights


def _from_folder(folder: Path) -> Found:
    if not (folder / CONFIG).is_file():
        raise ModelLoadError(
            f"the folder holds no {CONFIG}", folder, "choose a folder of a WSInfer zoo model"
        )
    folder = folder.resolve()
    config = read_config(folder / CONFIG)
    return folder, folder.name, config, _weights_in(folder, config)


def _weights_in(folder: Path, config: ZooConfig) -> Path:
    """The one of the zoo's name, else the only .pt, as QuPath takes it, else safetensors."""
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".pt")
    if len(found) == 1:
        return found[0]
    if not found and config.architecture and (folder / DATA).is_file():
        return folder / DATA
    what = f"{len(found)} .pt files" if found else "no .pt file"
    raise ModelLoadError(
        f"the folder holds {what}", folder, f"it must hold one TorchScript file, {WEIGHTS}"
    )
