"""Model files that want to run something, to fill the memory, or are simply broken.

`write_all` makes them; run as a program, this module tries to load each and tells what happened:
``python hostile_models.py FOLDER`` prints one line of JSON per file.
"""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from hostile_pickles import payloads
from made_files import quiet, small, write_program, write_safetensors, write_script

CANARY = "canary"
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def weights(**changes: bytes) -> bytes:
    """A zip archive of torch.save with other members."""
    return zipped({"a/data.pkl": b"\x80\x02}.", "a/version": b"3\n"} | changes)


def saved(value: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def tensors(header: object, data: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    """A safetensors file of a header, right or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def safetensors_files() -> dict[str, bytes]:
    good = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    whole = tensors({"a": good})
    return {
        "st-length-huge": tensors({"a": good}, length=(1 << 63) - 1),
        "st-length-40": tensors({"a": good}, length=1 << 40),
        "st-length-max": tensors({"a": good}, length=(1 << 64) - 1),
        "st-length-one-more": tensors({"a": good}, b"", length=200),
        "st-no-json": tensors(b"{" + b"x" * 40),
        "st-list": tensors(b'{"a":[1,2,3]}'),
        "st-shape-nan": tensors(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}'),
        "st-shape-negative": tensors({"a": good | {"shape": [-2, -2]}}),
        "st-shape-huge": tensors({"a": good | {"shape": [1 << 40, 1 << 40]}}),
        "st-shape-text": tensors({"a": good | {"shape": "big"}}),
        "st-shape-float": tensors({"a": good | {"shape": [2.5, 2]}}),
        "st-dtype": tensors({"a": good | {"dtype": "object"}}),
        "st-offsets-beyond": tensors({"a": good | {"data_offsets": [0, 1 << 40]}}),
        "st-offsets-reversed": tensors({"a": good | {"data_offsets": [16, 0]}}),
        "st-offsets-overlap": tensors({"a": good, "b": good}),
        "st-hole": tensors({"a": good | {"data_offsets": [16, 32]}}, b"\0" * 32),
        "st-rest": whole + b"more",
        "st-metadata": tensors({"__metadata__": {"a": {"b": 1}}, "a": good}),
        "st-deep": tensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "st-no-tensors": tensors({}, b""),
        "st-header-large": tensors(b"{" + b" " * (17 << 20) + b"}"),
        "st-ints": tensors({"a": good | {"dtype": "I32"}}),
        **{f"st-cut-{n}": whole[:n] for n in (1, 4, 8, 9, 20, len(whole) - 1)},
    }


def zip_files() -> dict[str, bytes]:
    whole = saved(small().state_dict())
    end = whole.rindex(b"PK\x05\x06")
    lying = bytearray(weights())
    entry = lying.index(b"PK\x01\x02")
    lying[entry + 20 : entry + 28] = struct.pack("<LL", 0x7FFFFFF0, 0x7FFFFFF0)
    encrypted = bytearray(weights())
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        encrypted[encrypted.index(mark) + at] |= 1
    return {
        "zip-empty": zipped({}),
        "zip-other": zipped({"readme.txt": b"hello"}),
        "zip-bomb": zipped(
            {"a/data.pkl": b"\x80\x02}.", "a/data/0": b"\0" * (64 << 20)}, zipfile.ZIP_DEFLATED
        ),
        "zip-bomb-pickle": zipped({"a/data.pkl": b"\0" * (80 << 20)}, zipfile.ZIP_DEFLATED),
        "zip-lies": bytes(lying),
        "zip-encrypted": bytes(encrypted),
        "zip-twice": zipped_twice(),
        "zip-many": zipped({f"a/{n:0100d}": b"" for n in range(70_000)}),
        "zip-traversal": weights(**{"../../../../tmp/canary": b"x"}),
        "zip-absolute": zipped({"/data.pkl": b"\x80\x02cos\nsystem\n)R."}),
        "zip-directory-lost": weights()[:-6] + b"\xff\xff\xff\x7f\0\0",
        "zip-comment": whole[: end + 20] + b"\xff\xff" + b"x" * 70_000,
        "zip-long-tail": whole + b"x" * 200_000,
        "zip-two-ends": whole + whole[end:][:10],
        "zip64-lies": whole[:end] + b"PK\x06\x07" + b"\xff" * 16 + whole[end : end + 12]
        + b"\xff\xff\xff\xff" + whole[end + 16 :],
        "npz": zipped({"a.npy": b"\x93NUMPY\x01\x00", "b.npy": b"\x93NUMPY\x01\x00"}),
        "keras": zipped({"config.json": b"{}", "model.weights.h5": b"x"}),
        "torch-package": zipped({"a/.data/extern_modules": b"os", "a/model/model.pkl": b"cos\n"}),
        "aoti": zipped({"a/data/aotinductor/model/x.so": b"\x7fELF", "a/archive_format": b"pt2"}),
        "code-and-pickle": zipped({"a/code/x.py": b"import os", "a/data.pkl": b"cos\nsystem\n."}),
        **{f"zip-cut-{n}": whole[: len(whole) * n // 8] for n in range(1, 8)},
    }  # fmt: skip


def zipped_twice() -> bytes:
    """Two members of one name: readers disagree about which of them counts."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("a/data.pkl", b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.")
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/version", b"3\n")
    return buffer.getvalue()


def state_files() -> dict[str, bytes]:
    state = small().state_dict()
    other = dict(state)
    return {
        "sd-stride-0": saved(other | {"head.weight": torch.zeros(1).expand(1 << 40)}),
        "sd-sparse": saved(other | {"head.weight": torch.eye(5)[:2].to_sparse()}),
        "sd-meta": saved(other | {"head.weight": torch.empty(2, 5, device="meta")}),
        "sd-ints": saved({k: v.long() for k, v in state.items()}),
        "sd-complex": saved({k: v.to(torch.complex64) for k, v in state.items()}),
        "sd-list": saved(list(state.values())),
        "sd-tensor": saved(torch.zeros(3)),
        "sd-empty": saved({}),
        "sd-number": saved({"state_dict": {"a": 3}}),
        "sd-keys": saved({1: torch.zeros(2), None: torch.zeros(2)}),
        "sd-wrapped-in-itself": saved(_endless()),
        "sd-other-net": saved(torch.nn.Linear(3, 4).state_dict()),
        "sd-one-missing": saved({k: v for k, v in state.items() if k != "head.bias"}),
        "sd-one-more": saved(other | {"more": torch.zeros(2)}),
        "sd-module": saved(small()),
        "sd-module-legacy": saved(small(), legacy=True),
        "sd-optimizer": saved({"optimizer": torch.optim.SGD([torch.zeros(1)])}),
        **{f"legacy-cut-{n}": saved(state, legacy=True)[: 100 * n] for n in range(1, 6)},
    }


def _endless() -> dict[str, object]:
    wrapped: dict[str, object] = {}
    wrapped["model"] = wrapped
    return wrapped


def other_files() -> dict[str, bytes]:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../evil"))
    return {
        "empty": b"",
        "byte": b"P",
        "pk": b"PK",
        "zeros": bytes(5000),
        "noise": np.random.default_rng(0).bytes(5000),
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9",
        "html": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
        "html-short": b"<HTML><head>",
        "xml": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "json": b'{"error": "Invalid username or password."}',
        "text": b"hello, this is no model\n" * 40,
        "png": b"\x89PNG\r\n\x1a\n" + bytes(600),
        "gzip": b"\x1f\x8b\x08" + bytes(600),
        "tar": packed.getvalue(),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(600),
        "numpy": b"\x93NUMPY\x01\x00" + bytes(600),
        "onnx": b"\x08\x07\x12\x07pytorch" + bytes(600),
        "elf": b"\x7fELF" + bytes(600),
        "script": b"#!/bin/sh\ntouch canary\n" + bytes(600),
    }  # fmt: skip


class Writes(torch.nn.Module):
    """TorchScript that writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.written = torch.zeros(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3))

    @torch.jit.export
    def __getstate__(self) -> str:
        return self.path

    @torch.jit.export
    def __setstate__(self, path: str) -> None:
        self.path = path
        self.training = False
        self.written = torch.from_file(path, shared=True, size=4)


def write_code(folder: Path, canary: Path) -> None:
    """Files that are code, whole and broken."""
    with quiet():
        torch.jit.save(torch.jit.script(Writes(str(canary))), folder / "jit-writes")
    write_script(folder / "jit-good", small())
    write_program(folder / "pt2-good", small())
    with zipfile.ZipFile(folder / "pt2-good") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    evil = payloads(canary)["os-system"]
    for name in members:
        if name.endswith("sample_inputs/model.pt"):
            members[name] = zipped({"a/data.pkl": evil, "a/version": b"3\n"})
    (folder / "pt2-pickle").write_bytes(zipped(members))
    for kind in ("jit-good", "pt2-good"):
        whole = (folder / kind).read_bytes()
        for n in (2, 5, 7):
            (folder / f"{kind}-cut-{n}").write_bytes(whole[: len(whole) * n // 8])


def write_special(folder: Path) -> None:
    """What is no plain file."""
    (folder / "loop-a").symlink_to(folder / "loop-b")
    (folder / "loop-b").symlink_to(folder / "loop-a")
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    locked = write_safetensors(folder / "locked", torch.nn.Linear(2, 2))
    locked.chmod(0)


def write_all(folder: Path) -> list[str]:
    """Write all of them; their names."""
    canary = folder.parent / CANARY
    pickles = payloads(canary)
    files = {f"pickle-{name}": content for name, content in pickles.items()}
    files |= {f"pt-{name}": weights(**{"a/data.pkl": p}) for name, p in pickles.items()}
    head = MAGIC + b"\x80\x02M\xe9\x03.\x80\x02}."
    files |= {f"legacy-{name}": head + p + b"\x80\x02]." for name, p in pickles.items()}
    files |= safetensors_files() | zip_files() | state_files() | other_files()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_code(folder, canary)
    write_special(folder)
    return sorted(path.name for path in folder.iterdir())


def attempts(path: Path):
    """The ways to load a file."""
    from napari_wsi_heatmap.models import load_model

    yield lambda: load_model(path)
    yield lambda: load_model(path, arch=small())
    yield lambda: load_model(small(), weights=path)
    if "-cut-" in path.name:
        yield lambda: load_model(path, trust=True)


def try_all(folder: Path) -> None:
    """Load each file in each way; print what came of it."""
    from napari_wsi_heatmap.errors import ModelError
    from napari_wsi_heatmap.models import trust

    trust.folder = lambda: folder.parent / "trusted"
    for path in sorted(folder.iterdir()):
        before, errors = _peak(), []
        for attempt in attempts(path):
            try:
                errors.append(["loaded", str(attempt())])
            except ModelError as error:
                errors.append(["refused", str(error)])
            except BaseException as error:
                errors.append(["raised", f"{type(error).__name__}: {error}"[:300]])
        ran = (folder.parent / CANARY).exists()
        row = {"name": path.name, "errors": errors, "ran": ran, "grown": _peak() - before}
        print(json.dumps(row), flush=True)


def _peak() -> int:
    """Most memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    try_all(Path(sys.argv[1]))
