"""What a model file is, by its content: its ending says little, since all call theirs ``.pt``."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.opened import opened
from napari_wsi_heatmap.models.zipmembers import Member, members_of

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

SAFETENSORS: Final = "safetensors"
WEIGHTS: Final = "weights"
"""A zip archive of `torch.save`."""
LEGACY: Final = "legacy weights"
"""What `torch.save` wrote before 1.6: pickles, then plain numbers."""
TORCHSCRIPT: Final = "TorchScript"
EXPORTED: Final = "torch.export"

SAVE = "save its state_dict: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
"""What to do with a pickled model."""
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LONGEST_HEADER = 16 << 20
"""Bytes of a safetensors header; that of the largest models known is below 1 MB."""
HEAD = 512

AGAIN = "download it again"
PICKLE = "a pickle, which is code; it is never opened"
_BEGINNINGS: Final = (
    (rb"version https://git-lfs", "a Git-LFS pointer, not the file itself", "run: git lfs pull"),
    (rb"\s*<(!doctype\s+html|html|head|body)", "an HTML page, no model", "log in, and " + AGAIN),
    (rb"\s*<(\?xml|error)", "an XML page, no model", "log in, and " + AGAIN),
    (rb"\s*[{\[]\s*[\"\]}]", "JSON text, no model", "choose the file of weights beside it"),
    (rb"\x89HDF\r\n", "an HDF5 file, as of Keras", "convert it to a torch model"),
    (rb"\x93NUMPY", "a NumPy array, no model", "save a state_dict as safetensors"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "a packed archive", "unpack it"),
    (rb".{257}ustar", "a tar archive", "unpack it, or " + SAVE),
    (rb"\x80[\x02-\x05]", PICKLE, SAVE),
    (rb"\(?S['\"]", PICKLE, SAVE),
    (rb"[(\]}l]*[ci][a-z_][\w.]*\r?\n\w[\w.]*\r?\n", PICKLE, SAVE),
    (rb"[\x08][\x01-\x0f].{0,3}[\x12\x3a]", "an ONNX or protobuf file", "convert it to torch"),
    (rb"\x7fELF|MZ|#!", "a program, no model", "choose a model file"),
)  # fmt: skip
"""How a file that is not loaded begins, what it is, and what to do."""


def sniff(path: Path) -> str:
    """Say which kind of model a file is.

    Returns
    -------
    str
        One of `SAFETENSORS`, `WEIGHTS`, `LEGACY`, `TORCHSCRIPT`, `EXPORTED`.

    Raises
    ------
    ModelLoadError
        If it is anything else; says what.

    Notes
    -----
    Nothing in it is executed or unpacked. Memory bound: the directory of a zip archive.
    """
    with opened(path) as file:
        return sniff_open(path, file)


def sniff_open(path: Path, file: BinaryIO) -> str:
    """Say which kind of model an open file is, as `sniff` does."""
    file.seek(0)
    head = file.read(HEAD)
    size = file.seek(0, io.SEEK_END)
    if not size:
        raise ModelLoadError("the model file is empty", path, AGAIN)
    if head.startswith(b"PK"):
        return kind_of_archive(path, members_of(path, file))
    if LEGACY_MAGIC in head[:16]:
        return LEGACY
    if head[8:9] == b"{":
        _check_header(path, int.from_bytes(head[:8], "little"), size)
        return SAFETENSORS
    raise _refusal(path, head, size)


def kind_of_archive(path: Path, members: list[Member]) -> str:
    """Say which kind of torch's zip archives it is, by the names of its members."""
    names = {member.name for member in members}
    full = {member.full_name for member in members}
    if any(name.startswith("data/aotinductor/") for name in names):
        raise ModelLoadError("it is compiled machine code (AOTInductor)", path, SAVE)
    if any(name.startswith("models/") for name in names) or "serialized_exported_program.json" in (
        names | full
    ):
        return EXPORTED
    if ".data/extern_modules" in names | full:
        raise ModelLoadError("it is a torch.package, which is code; never opened", path, SAVE)
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return TORCHSCRIPT
    if "data.pkl" in names:
        return WEIGHTS
    raise ModelLoadError(f"it is {_other_archive(full)}, no model of torch", path, "choose another")


def _other_archive(names: set[str]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (npz)"
    if "model.weights.h5" in names:
        return "a Keras model"
    return "a zip archive of other things" if names else "an empty zip archive"


def _check_header(path: Path, length: int, size: int) -> None:
    if 8 + length > size:
        what = f"its header should have {length} bytes, and the file has {size}: it is truncated"
        raise ModelLoadError(f"a safetensors file, but {what}", path, AGAIN)
    if length > LONGEST_HEADER:
        raise ModelLoadError(f"its safetensors header has {length} bytes", path, "refused")


def _refusal(path: Path, head: bytes, size: int) -> ModelLoadError:
    for pattern, what, do in _BEGINNINGS:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            return ModelLoadError(f"it is {what}", path, do)
    if not head.strip(b"\0"):
        return ModelLoadError("the file begins with zeros: it was not written whole", path, AGAIN)
    if size < HEAD:
        return ModelLoadError(f"a file of {size} bytes, too short for a model", path, AGAIN)
    do = "there are safetensors, state dicts, TorchScript and torch.export files"
    return ModelLoadError("the file is no model of a known kind", path, do)
