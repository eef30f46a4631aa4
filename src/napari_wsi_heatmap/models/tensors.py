"""Files of weights: tensors by name, read without running anything that the file says."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final

import torch

from napari_wsi_heatmap.errors import ModelLoadError, one_line
from napari_wsi_heatmap.models.opened import opened
from napari_wsi_heatmap.models.picklelook import check_plain
from napari_wsi_heatmap.models.sniff import LEGACY, SAFETENSORS, SAVE, WEIGHTS, sniff_open
from napari_wsi_heatmap.models.zipmembers import Member, damaged, members_of, read_member

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    State = dict[str, torch.Tensor]

WRAPPERS: Final = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts keep the state dict beside other things."""
LONGEST_PICKLE = 64 << 20
"""Bytes of the pickle that names the tensors; that of the largest models known is below 1 MB."""
LEGACY_PICKLES = 5
"""Magic number, version, machine, the dict, the keys of the storages."""


def read_state(path: Path) -> State:
    """Read the tensors of a safetensors file, or of what `torch.save` made of a state dict.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of str to torch.Tensor
        On the CPU. A wrapper (`WRAPPERS`) is taken off, the names are as in the file.

    Raises
    ------
    ModelLoadError
        If the file is damaged, is no such file, or would have to run something.

    Notes
    -----
    Memory bound: twice the size of the file, in which every tensor must lie. The file is not
    mapped: weights must not change, nor the process end, when somebody writes to it later.
    """
    state = unwrapped(path, read_saved(path))
    for name, tensor in state.items():
        check_tensor(path, name, tensor)
    return state


def read_saved(path: Path) -> Any:
    """Read what `torch.save` or safetensors has saved, whatever plain data it is.

    Raises
    ------
    ModelLoadError
        As `read_state`. The tensors in it are not looked at: see `check_tensor`.
    """
    with opened(path) as file:
        kind = sniff_open(path, file)
        if kind not in _READERS:
            what = f"it is a {kind} file, which holds code beside its weights"
            raise ModelLoadError(what, path, "leave arch= and weights= away, or " + SAVE)
        return _READERS[kind](path, file)


def unwrapped(path: Path, loaded: Any) -> State:
    """Take the state dict out of what a training script has saved."""
    for _ in range(len(WRAPPERS)):
        inner = [loaded[key] for key in WRAPPERS if _is_dict(loaded) and _is_dict(loaded.get(key))]
        if not inner:
            break
        loaded = inner[0]
    if not _is_dict(loaded):
        raise ModelLoadError(f"it holds a {type(loaded).__name__}, no state dict", path, SAVE)
    foreign = [key for key, v in loaded.items() if not isinstance(v, torch.Tensor)]
    if foreign or not loaded:
        shown = ", ".join(map(repr, foreign[:3])) or "nothing"
        raise ModelLoadError(f"no state dict: it holds {shown} beside tensors", path, SAVE)
    return {str(key): tensor for key, tensor in loaded.items()}


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _read_safetensors(path: Path, file: BinaryIO) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load

    file.seek(0)
    try:
        return load(file.read())
    except (SafetensorError, ValueError, KeyError, TypeError, MemoryError, RuntimeError) as error:
        what = f"the safetensors file is damaged: {one_line(error)}"
        raise ModelLoadError(what, path, "copy or download it again") from None


def _read_archive(path: Path, file: BinaryIO) -> Any:
    members = members_of(path, file)
    _check_members(path, members, file.seek(0, io.SEEK_END))
    pickles = [member for member in members if member.name == "data.pkl"]
    for member in pickles:
        check_plain(path, read_member(path, file, member.full_name, LONGEST_PICKLE))
    return _load(path, file)


def _check_members(path: Path, members: list[Member], size: int) -> None:
    """Refuse an archive that would grow when it is unpacked: `torch.save` never compresses."""
    if len({member.full_name for member in members}) < len(members):
        raise ModelLoadError("the zip archive has two members of one name", path, "refused")
    if not all(member.stored for member in members):
        raise ModelLoadError("the zip archive of weights is compressed", path, SAVE)
    if sum(member.size for member in members) > size:
        raise ModelLoadError("the zip archive claims more bytes than the file has", path, "refused")


def _read_legacy(path: Path, file: BinaryIO) -> Any:
    file.seek(0)
    check_plain(path, file.read(LONGEST_PICKLE), LEGACY_PICKLES)
    return _load(path, file)


def _load(path: Path, file: BinaryIO) -> Any:
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Said aloud: by default an environment variable could switch the guard off.
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - of a damaged file, whatever torch meets
        reason = _reason(error)
        raise (
            damaged(path, reason)
            if reason
            else ModelLoadError(
                "the file of weights is damaged, or holds more than tensors", path, SAVE
            )
        ) from None


def _reason(error: Exception) -> str:
    """What torch says, unless that is the advice to load the file unsafely."""
    text = one_line(str(error).partition("\n")[0], 120)
    return "" if "weights" in text.lower() else text


def check_tensor(path: Path, name: str, tensor: torch.Tensor) -> None:
    """Refuse tensors that lie in memory as no ordinary one does."""
    plain = tensor.layout == torch.strided and not tensor.is_quantized
    if not plain or tensor.device.type != "cpu":
        raise ModelLoadError(f"{name} in it is sparse, quantized or without numbers", path, SAVE)
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        shape = tuple(tensor.shape)
        raise ModelLoadError(f"{name} of shape {shape} is larger than the file", path, "refused")


_READERS: Final = {SAFETENSORS: _read_safetensors, WEIGHTS: _read_archive, LEGACY: _read_legacy}
