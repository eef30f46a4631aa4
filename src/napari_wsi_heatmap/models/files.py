"""Model files of all kinds: what each is decides its content, and who loads it this table.

A file that is none is refused without importing torch.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.sniff import EXPORTED, TORCHSCRIPT, sniff

if TYPE_CHECKING:
    from napari_wsi_heatmap.models.base import HeatmapModel
    from napari_wsi_heatmap.models.trust import Trust

CODE: Final = {
    TORCHSCRIPT: ("napari_wsi_heatmap.models.torchscript", "TorchScriptModel"),
    EXPORTED: ("napari_wsi_heatmap.models.exported", "load_exported"),
}
"""Kinds that are code and need consent: module and name of what loads them."""
KNOWN: Final = ("napari_wsi_heatmap.models.known", "load_known")
"""What makes a model of weights of this package's own architectures, and None of others."""
DATA: Final = ("napari_wsi_heatmap.models.statedict", "load_arch")
NO_ARCH: Final = "a file of weights does not say of which architecture they are"


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
    path = _home_of(spec)
    kind = sniff(path)
    if kind not in CODE:
        known = _made(KNOWN, path, arch=arch, **settings)
        return known or _made(DATA, path, arch=arch, **settings)
    if arch is not None:
        what = f"a {kind} file has its own architecture"
        raise ModelLoadError(what, path, "leave arch= away")
    return _made(CODE[kind], path, trust=trust, **settings)


def is_weights(spec: str | os.PathLike[str]) -> bool:
    """Whether a file holds weights alone; nothing of it is loaded."""
    try:
        return sniff(_home_of(spec)) not in CODE
    except ModelLoadError:
        return False


def _home_of(spec: str | os.PathLike[str]) -> Path:
    """The path, "~" undone: where there is no such user it stays, and is no file."""
    return Path(os.path.expanduser(spec))


def _made(maker: tuple[str, str], path: Path, **settings: Any) -> HeatmapModel:
    module, name = maker
    made = getattr(importlib.import_module(module), name)(path, **settings)
    return cast("HeatmapModel", made)
