"""Models of the WSInfer zoo: a folder or a Hugging Face repository of config.json and TorchScript.

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
from napari_wsi_heatmap.models.torchscript import script_of
from napari_wsi_heatmap.models.trust import read_code
from napari_wsi_heatmap.models.zooconfig import ZooConfig, read_config

if TYPE_CHECKING:
    from napari_wsi_heatmap.models.trust import Trust

CONFIG: Final = "config.json"
WEIGHTS: Final = "torchscript_model.pt"


def zoo_model(spec: Any, *, trust: Trust = None, **settings: Any) -> FileModel:
    """Make a model of a WSInfer zoo directory or repository.

    Parameters
    ----------
    spec : path or str
        A folder that holds `config.json` and one TorchScript file, or
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
    code = read_code(weights, TORCHSCRIPT, trust)
    transform = None if config.mean is None else Normalize(config.mean, config.std or ())
    stated = {
        "window": (config.size, config.size),
        "mpp": config.mpp,
        "names": config.names,
        "activation": config.activation,
        "transform": transform,
    }
    model = FileModel(script_of(code), Source(code.path, code.sha256), **(stated | settings))
    model.name = name
    model.made_from(address, transform)
    return model


Found = tuple[str | Path, str, ZooConfig, Path]
"""Address, name, config and file of weights."""


def _from_hub(spec: str) -> Found:
    repository = HubRepository.of(spec)
    config = read_config(repository.fetched(CONFIG))
    return spec, repository.name, config, repository.fetched(WEIGHTS)


def _from_folder(folder: Path) -> Found:
    if not (folder / CONFIG).is_file():
        raise ModelLoadError(
            f"the folder holds no {CONFIG}", folder, "choose a folder of a WSInfer zoo model"
        )
    folder = folder.resolve()
    return folder, folder.name, read_config(folder / CONFIG), _weights_in(folder)


def _weights_in(folder: Path) -> Path:
    """The one of the zoo's name, else the only .pt, as QuPath takes it."""
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".pt")
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} .pt files" if found else "no .pt file"
    raise ModelLoadError(
        f"the folder holds {what}", folder, f"it must hold one TorchScript file, {WEIGHTS}"
    )
