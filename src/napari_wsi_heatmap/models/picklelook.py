"""Which classes and functions a pickle names, found without running it."""

from __future__ import annotations

import io
import pickletools
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.sniff import SAVE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAIN = frozenset(
    {
        "collections OrderedDict",
        "torch Size",
        "torch device",
        "torch._tensor _rebuild_from_type_v2",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch.storage UntypedStorage",
        "torch.nn.parameter Parameter",
        "torch.serialization _get_layout",
    }
)
"""What a pickle of tensors may name: nothing of it does anything but make a tensor or a dict."""
FLOATS = ("float16", "bfloat16", "float32", "float64")
WHOLES = ("uint8", "int8", "int16", "int32", "int64", "bool")
STORAGES = (
    *("Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long", "Bool"),
    "Untyped",
)
TYPES = frozenset((*FLOATS, *WHOLES, *(f"{name}Storage" for name in STORAGES)))
"""Names in torch of types, and of the storages of old."""
MODULES = ("torch.nn.", "torchvision.", "timm.", "monai.", "segmentation_models_pytorch.")
"""Where the classes of layers live."""


def check_plain(path: Path, content: bytes, pickles: int = 1) -> None:
    """Refuse a pickle that names anything but tensors.

    Parameters
    ----------
    path : Path
    content : bytes
        One pickle after the other.
    pickles : int
        How many.

    Raises
    ------
    ModelLoadError
        Naming what it found, and how to save a state dict instead.
    """
    names = list(dict.fromkeys(_names(path, content, pickles)))
    foreign = [name for name in names if not _is_plain(name)]
    if not foreign:
        return
    layers = [name for name in foreign if f"{name} ".startswith(MODULES)]
    shown = ", ".join(name.replace(" ", ".") for name in (layers or foreign)[:3])
    what = "it is a pickled model" if layers else "it pickles more than tensors"
    raise ModelLoadError(f"{what}, which is code ({shown}); it is never opened", path, SAVE)


def _is_plain(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    return name in PLAIN or (module == "torch" and attribute in TYPES)


def _names(path: Path, content: bytes, pickles: int) -> Iterator[str]:
    """Yield "module name" of every global, and of everything that could hide one."""
    stream = io.BytesIO(content)
    try:
        for _ in range(pickles):
            yield from _names_of_one(stream)
    except ModelLoadError:
        raise
    except Exception as error:  # noqa: BLE001 - of a hostile file, whatever the parser meets
        what = f"its pickle is damaged: {error}"
        raise ModelLoadError(what, path, "copy or download it again") from None


def _names_of_one(stream: io.BytesIO) -> Iterator[str]:
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in ("GLOBAL", "INST"):
            yield str(argument)
        elif name == "STACK_GLOBAL":
            # The last two texts, if nobody hid them in the memo: then it is foreign as well.
            yield " ".join(texts[-2:]) if len(texts) > 1 else "an unnamed global"
        elif name.startswith("EXT"):
            yield "copyreg extension"
        texts = _with(texts, opcode, argument)


def _with(texts: list[str], opcode: Any, argument: object) -> list[str]:
    """The last texts that were pushed; anything but text or a memo's mark ends their row."""
    if isinstance(argument, str) and "UNICODE" in opcode.name:
        return [*texts[-1:], argument]
    return texts if opcode.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT") else []
