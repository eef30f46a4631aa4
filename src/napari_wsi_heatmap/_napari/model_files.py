"""Models that somebody chooses in the dock: loaded in a thread, asked about, then offered."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFileDialog, QInputDialog

from napari_wsi_heatmap._napari.consent import consents
from napari_wsi_heatmap._napari.model_list import MODELS
from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap.errors import ModelLoadError, UntrustedModelError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.encodertable import ENCODERS
from napari_wsi_heatmap.models.files import NO_ARCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QWidget

FILES = "Models (*.safetensors *.pt *.pth *.pt2 *.bin *.ckpt *.ts config.json);;All files (*)"
CONFIG = "config.json"
ARCHITECTURE = (
    "The file holds weights alone. Of which architecture, as timm calls it,\n"
    "or of which encoder: uni, virchow2, …?"
)
NAMED = (
    "A foundation encoder, whose weights lie in your Hugging Face cache,\n"
    "or the address of a repository, hf://owner/name@ and the 40 digits of a commit:"
)
_NEEDS_ARCH = object()


def choose_model_file(parent: QWidget | None, then: Callable[[str], None]) -> None:
    """Ask for a model file, and add it; the config of a zoo's folder stands for the folder."""
    chosen, _ = QFileDialog.getOpenFileName(parent, "Model file", "", FILES)
    if chosen:
        path = Path(chosen)
        add_model_file(path.parent if path.name == CONFIG else path, parent, then)


def choose_named_model(parent: QWidget | None, then: Callable[[str], None]) -> None:
    """Ask for an encoder or the address of a repository, and add it."""
    name, given = QInputDialog.getItem(parent, "Model", NAMED, list(ENCODERS), 0, True)
    if given and name.strip():
        add_model_file(name.strip(), parent, then)


def add_model_file(
    spec: Path | str, parent: QWidget | None, then: Callable[[str], None], **options: Any
) -> None:
    """Load a model file, or the files of a repository, in a thread and offer it.

    Parameters
    ----------
    spec : Path or str
        A file or folder; or a name or address that `load_model` takes.
    parent : QWidget, optional
        What a question belongs to: consent to code, or the architecture of weights.
    then : callable
        Gets the name under which the dock offers it.
    **options
        For `load_model`.
    """

    def loaded(result: Any) -> None:
        if result is _NEEDS_ARCH:
            arch, given = QInputDialog.getText(parent, "Architecture", ARCHITECTURE)
            if given and arch.strip():
                add_model_file(spec, parent, then, arch=arch.strip())
        elif isinstance(result, UntrustedModelError):
            if consents(parent, result):
                add_model_file(spec, parent, then, trust=result.sha256)
        else:
            name = _free_name(result)
            MODELS.register(name, result)
            then(name)

    off_gui(lambda: _load(spec, options), loaded, "The model cannot be loaded")


def _load(spec: Path | str, options: dict[str, Any]) -> Any:
    """The model, or what must be asked before."""
    try:
        return load_model(spec, **options)
    except UntrustedModelError as error:
        if "trust" in options:  # the file has changed since the question
            raise
        return error
    except ModelLoadError as error:
        if error.what != NO_ARCH:
            raise
        return _NEEDS_ARCH


def _free_name(model: Any) -> str:
    """The model's name, or where another has it, with a number."""
    numbered = (f"{model.name} {n}" for n in count(2))
    return next(name for name in chain([model.name], numbered) if _is_free(name, model))


def _is_free(name: str, model: Any) -> bool:
    """Whether nothing has the name, or an earlier reading of the same file."""
    if name not in MODELS.names:
        return True
    source = getattr(MODELS.spec(name), "source", None)
    return source is not None and source.path == model.source.path
