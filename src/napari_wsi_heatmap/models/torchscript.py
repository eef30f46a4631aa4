"""TorchScript files, as `torch.jit.save` makes them and WSInfer's zoo keeps them. They are code."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_wsi_heatmap.errors import ModelLoadError, one_line
from napari_wsi_heatmap.models.filemodel import FileModel, Source
from napari_wsi_heatmap.models.sniff import TORCHSCRIPT
from napari_wsi_heatmap.models.trust import read_code

if TYPE_CHECKING:
    import os

    from napari_wsi_heatmap.models.trust import Code, Trust


class TorchScriptModel(FileModel):
    """A TorchScript file, if there is consent to it.

    Parameters
    ----------
    path : path
    trust : str, sequence of str or bool, optional
        As for `read_code`.
    **settings
        Attributes of `HeatmapModel`, checked.

    Raises
    ------
    UntrustedModelError
        Without consent.
    ModelLoadError
        If torch cannot load it.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, trust: Trust = None, **settings: Any
    ) -> None:
        code = read_code(Path(path), TORCHSCRIPT, trust)
        super().__init__(script_of(code), Source(code.path, code.sha256), **settings)
        self.made_from(path)


def script_of(code: Code) -> torch.jit.ScriptModule:
    """Make the module of a trusted file, in evaluation mode on the CPU.

    Raises
    ------
    ModelLoadError
        If torch cannot load it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of the format
            module = torch.jit.load(io.BytesIO(code.content), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise broken(code.path, TORCHSCRIPT, error) from error
    module.eval()
    return module


def broken(path: Path, kind: str, error: Exception) -> ModelLoadError:
    """Say that torch cannot load a file that is code."""
    text = one_line(str(error).strip().partition("\n")[0], 150)
    # torch would advise to load it as a pickle.
    reason = "" if not text or "weights" in text.lower() else f": {text}"
    what = f"torch {torch.__version__} cannot load this {kind} file{reason}"
    return ModelLoadError(what, path, "copy it again, or save it with a torch of this version")
