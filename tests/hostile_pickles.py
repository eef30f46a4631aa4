"""Pickles that want to run something, or to fill the memory."""

from __future__ import annotations

import os
import pickle
import struct
from typing import TYPE_CHECKING

import torch

from made_files import Small

if TYPE_CHECKING:
    from pathlib import Path


class Reduced:
    """Unpickling it calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def payloads(canary: Path) -> dict[str, bytes]:
    """Pickles that make the file `canary` when they are run, or eat memory."""
    touch = f"touch '{canary}'"
    python = f"open({str(canary)!r}, 'w').close()"
    text = [_text(word) for word in ("posix", "system", touch)]
    return {
        "os-system": pickle.dumps(Reduced(os.system, touch), 2),
        "os-system-4": pickle.dumps(Reduced(os.system, touch), 4),
        "eval": pickle.dumps(Reduced(eval, python), 2),
        "exec": pickle.dumps(Reduced(exec, python), 3),
        "popen": pickle.dumps(Reduced(os.popen, touch), 2),
        "nested": pickle.dumps({"state_dict": {"a": [Reduced(os.system, touch)]}}, 2),
        "reduce-of-reduce": pickle.dumps(Reduced(Reduced, Reduced(os.system, touch)), 2),
        "global-text": f'cposix\nsystem\n(S"{touch}"\ntR.'.encode(),
        "inst": f'(S"{touch}"\niposix\nsystem\n.'.encode(),
        "obj": b"\x80\x02(cposix\nsystem\n" + text[2] + b"o.",
        "memo-hides-it": (
            b"\x80\x04" + text[0] + b"\x94" + text[1] + b"\x94"
            + _text("collections") + _text("OrderedDict") + b"00" + b"h\x00h\x01\x93"
            + text[2] + b"\x85R."
        ),
        "extension": b"\x80\x02\x82\x01)R.",
        "import": pickle.dumps(Reduced(__import__, "os"), 2),
        "torch-load": pickle.dumps(Reduced(torch.load, str(canary) + ".pkl"), 2),
        "torch-hub": b"\x80\x02ctorch.hub\nload_state_dict_from_url\n" + text[2] + b"\x85R.",
        "rebuild-hook": b"\x80\x02ctorch._utils\n_rebuild_wrapper_subclass\n)R.",
        "bytearray": b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\0\0\0\0\x10\x85R.",
        "long-text": b"\x80\x02X\xff\xff\xff\x7fabc.",
        "long-bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"abc.",
        "deep": b"\x80\x02" + b"(" * 200_000 + b"l" * 200_000 + b".",
        "no-end": b"\x80\x02}q\x00",
        "layers": pickle.dumps(Small(), 2),
    }  # fmt: skip


def _text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()
