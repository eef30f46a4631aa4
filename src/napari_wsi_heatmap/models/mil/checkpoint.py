"""A checkpoint file of a MIL model, whoever wrote it, as tensors by name.

The wrappers that training scripts put around a state dict are taken off, and what stands before
its names; nothing in the file is ever run.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from napari_wsi_heatmap.errors import ModelLoadError, one_line
from napari_wsi_heatmap.models.mil.inert import Inert, load_inert
from napari_wsi_heatmap.models.opened import opened
from napari_wsi_heatmap.models.sniff import LEGACY, SAFETENSORS, SAVE, WEIGHTS, sniff_open
from napari_wsi_heatmap.models.tensors import read_state
from napari_wsi_heatmap.models.zipmembers import members_of

if TYPE_CHECKING:
    from pathlib import Path

    Tensors = dict[str, torch.Tensor]

WRAPPERS: Final = (
    "model_state_dict", "state_dict", "state_dict_ema", "model_ema", "model", "net", "weights",
)  # fmt: skip
"""Keys under which training scripts keep the state dict beside other things."""
_DEEPEST = 8
_PREFIXES: Final = ("module.", "model.", "_orig_mod.")
"""What DataParallel, Lightning and torch.compile put before every name."""
_OF_TRAINING: Final = re.compile(r"instance_loss_fn\.|loss\.|AUROC|valid_|test_")
"""Tensors of losses and metrics that were saved with the model."""
_PARALLEL: Final = re.compile(r"^attention_net\.module\.(\d+)\.")
"""CLAM wraps this one part in DataParallel; "module" deeper in is its own."""
_TRIDENT: Final = re.compile(r"^feature_encoder\.(model\.)?")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file, under the names that their model gave them."""

    path: Path
    sha256: str
    tensors: Tensors


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of `torch.save` (also of before 1.6) or safetensors.

    Raises
    ------
    ModelLoadError
        If it is damaged, holds no tensors, or is code.

    Notes
    -----
    Memory bound: twice the size of the file.
    """
    with opened(path) as file:
        kind = sniff_open(path, file)
        if kind in (WEIGHTS, LEGACY):
            content = _content(path, file)
            tensors = _unwrapped(path, _load(path, content, zipped=kind == WEIGHTS))
        elif kind == SAFETENSORS:
            content, tensors = _content(path, file), read_state(path)
        else:
            raise ModelLoadError(f"a {kind} file is code, not a checkpoint", path, SAVE)
    _check_storages(path, tensors, len(content))
    renamed = _renamed(path, tensors)
    numbers = {name: _numbers(path, name, tensor) for name, tensor in renamed.items()}
    return Checkpoint(path, hashlib.sha256(content).hexdigest(), numbers)


def _content(path: Path, file: Any) -> bytes:
    file.seek(0)
    try:
        return file.read()
    except MemoryError:
        raise ModelLoadError("the checkpoint does not fit into memory", path) from None


def _load(path: Path, content: bytes, *, zipped: bool) -> Any:
    if zipped:
        _check_members(path, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _load_plain(content)
    except Exception as error:  # noqa: BLE001 - of a damaged file, whatever the unpickler meets
        what = f"the checkpoint cannot be read: {one_line(error, 120)}"
        raise ModelLoadError(what, path, "copy it again, or " + SAVE) from None


def _load_plain(content: bytes) -> Any:
    try:
        # Said aloud: by default an environment variable could switch the guard off.
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return load_inert(io.BytesIO(content))


def _check_members(path: Path, content: bytes) -> None:
    """Refuse an archive that would grow when it is unpacked, or that torch would run."""
    members = members_of(path, io.BytesIO(content))
    grows = sum(member.size for member in members) > len(content)
    if grows or not all(member.stored for member in members):
        raise ModelLoadError("the zip archive of weights is compressed", path, SAVE)
    # As torch itself will read it, whatever another reader of zip files sees.
    names = torch._C.PyTorchFileReader(io.BytesIO(content)).get_all_records()
    if "constants.pkl" in names:
        raise ModelLoadError("a TorchScript file is code, not a checkpoint", path, SAVE)


def _unwrapped(path: Path, loaded: Any) -> Tensors:
    """Take the state dict out of what a training script has saved."""
    for _ in range(_DEEPEST):
        inner = _inside(loaded)
        if inner is None:
            break
        loaded = inner
    if isinstance(loaded, (Inert, torch.nn.Module)):
        raise ModelLoadError("it is a pickled model, which is code; never opened", path, SAVE)
    if not isinstance(loaded, Mapping):
        raise ModelLoadError(f"it holds a {type(loaded).__name__}, no state dict", path, SAVE)
    tensors = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        shown = ", ".join(repr(str(key)) for key in list(loaded)[:5]) or "nothing"
        raise ModelLoadError(f"there are no weights in it: it holds {shown}", path, SAVE)
    return tensors


def _inside(loaded: Any) -> Any:
    if not isinstance(loaded, Mapping):
        return None
    inner = (loaded.get(key) for key in WRAPPERS)
    return next((i for i in inner if isinstance(i, (Mapping, Inert, torch.nn.Module))), None)


def _renamed(path: Path, tensors: Tensors) -> Tensors:
    """Take off what stands before the names, and leave out what belongs to training."""
    names = {name: name for name in tensors}
    while True:
        names = {old: name for old, name in names.items() if not _OF_TRAINING.match(name)}
        prefix = next((p for p in _PREFIXES if all(map(_begins(p), names.values()))), None)
        if prefix is None or not names:
            break
        names = {old: name.removeprefix(prefix) for old, name in names.items()}
    renamed = {old: _without_parallel(name) for old, name in names.items()}
    if len(set(renamed.values())) < len(renamed):
        raise ModelLoadError("two tensors in it are of one name", path, SAVE)
    return {name: tensors[old] for old, name in renamed.items()}


def _begins(prefix: str) -> Any:
    return lambda name: name.startswith(prefix)


def _without_parallel(name: str) -> str:
    return _TRIDENT.sub("", _PARALLEL.sub(r"attention_net.\1.", name))


def _check_storages(path: Path, tensors: Tensors, size: int) -> None:
    """Refuse tensors that claim more bytes than the file has: they would be strange memory."""
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and not tensor.is_quantized
        if not plain or tensor.device.type != "cpu":
            raise ModelLoadError(f"{name} in it is sparse, quantized or empty", path, SAVE)
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ModelLoadError(f"{name} in it is larger than the file", path, "refused")
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors.values()}
    if sum(storage.nbytes() for storage in storages.values()) > size:
        raise ModelLoadError("its tensors are larger than the file", path, "refused")


def _numbers(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as float32 of its own memory, without gradient; counters as they are."""
    if not tensor.is_floating_point():
        return tensor
    numbers = tensor.detach().clone(memory_format=torch.contiguous_format).to(torch.float32)
    if not numbers.isfinite().all():
        raise ModelLoadError(f"{name} in it holds NaN or infinity", path, "train it again")
    return numbers
