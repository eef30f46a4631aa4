"""Model files of all kinds: what each is decides its content, and who loads it this table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.exported import load_exported
from napari_wsi_heatmap.models.known import load_known
from napari_wsi_heatmap.models.sniff import EXPORTED, TORCHSCRIPT, sniff
from napari_wsi_heatmap.models.statedict import load_arch
from napari_wsi_heatmap.models.torchscript import TorchScriptModel

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust

CODE: dict[str, Callable[..., HeatmapModel]] = {
    TORCHSCRIPT: TorchScriptModel,
    EXPORTED: load_exported,
}
"""Kinds that are code, and need consent."""


def load_file(
    spec: str | os.PathLike[str], *, trust: Trust = None, arch: Any = None, **settings: Any
) -> HeatmapModel:
    """Load a model file.

    Parameters
    ----------
    spec : path
    trust : str, sequence of str or bool, optional
        Consent to a file that is code.
    arch : str or nn.Module, optional
        What the weights of a state dict belong into.
    **settings
        Attributes of `HeatmapModel`, checked.

    Raises
    ------
    UntrustedModelError
        If the file is code, and there is no consent.
    ModelLoadError
        If it is no model, is damaged, or does not fit; says what it is.
    """
    path = Path(spec).expanduser()
    kind = sniff(path)
    if kind not in CODE:
        return load_known(path, arch, **settings) or load_arch(path, arch, **settings)
    if arch is not None:
        what = f"a {kind} file has its own architecture"
        raise ModelLoadError(what, path, "leave arch= away")
    return CODE[kind](path, trust=trust, **settings)
