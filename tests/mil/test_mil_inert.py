"""Hostile pickles: whatever they name, nothing of it is run."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path, PosixPath

import numpy as np
import pytest
import torch
from mil_made import LAYOUTS

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.mil.inert import Inert, load_inert


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Settings(dict):
    """A dict of a class of its own, as of the package addict."""


def state():
    return LAYOUTS["clam_sb"][1]()


def hostile(canary):
    path = str(canary)
    return {
        "system": Calls(os.system, f"touch {path}"),
        "popen": Calls(subprocess.Popen, ["touch", path]),
        "eval": Calls(builtins.eval, f"open({path!r}, 'w')"),
        "exec": Calls(builtins.exec, f"open({path!r}, 'w')"),
        "open": Calls(builtins.open, path, "w"),
        "touch": Calls(Path.touch, PosixPath(path)),
        "mkdir": Calls(os.mkdir, path),
        "from torch": Calls(torch.save, {}, path),
        "legacy bytes": Calls(torch.storage._load_from_bytes, dumped(path)),
        "numpy": Calls(np.save, path, np.zeros(1)),
    }


def dumped(path):
    buffer = io.BytesIO()
    torch.save(Calls(os.mkdir, path), buffer)
    return buffer.getvalue()


CASES = sorted(hostile("x"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("beside", [True, False], ids=["beside", "alone"])
@pytest.mark.parametrize("case", CASES)
def test_never_run(tmp_path, case, beside, zipped):
    canary, path = tmp_path / "canary", tmp_path / "checkpoint.pt"
    payload = hostile(canary)[case]
    content = {"state_dict": state(), "args": payload} if beside else payload
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    if beside:
        assert wh.load_mil(path, device="cpu").facts.kind == "clam_sb"
    else:
        with pytest.raises(ModelLoadError):
            wh.load_mil(path)
    assert not canary.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt"]


def test_the_payload_is_one(tmp_path):
    """The canary sings where a pickle is trusted, so its silence above means something."""
    canary, path = tmp_path / "canary", tmp_path / "checkpoint.pt"
    torch.save({"args": Calls(os.mkdir, str(canary))}, path)
    torch.load(path, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_settings_of_all_kinds_are_passed_over(tmp_path, zipped):
    extra = {
        "path": PosixPath("logs"), "settings": Settings(a=1, b=Settings(c=[2])),
        "number": np.float64(0.5), "array": np.arange(3), "types": [int, os.getcwd],
        "set": {PosixPath("a")}, "queue": collections.deque([1]), "shape": torch.Size([2]),
        "layer": torch.nn.Linear(2, 2), "dtype": torch.float16, "slice": slice(1, 2),
    }  # fmt: skip
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": state(), **extra}, path, _use_new_zipfile_serialization=zipped)
    assert wh.load_mil(path, device="cpu").facts.n_classes == 3
    loaded = load_inert(io.BytesIO(path.read_bytes()))
    assert isinstance(loaded["path"], Inert)
    assert isinstance(loaded["layer"], Inert)
    assert loaded["dtype"] is torch.float16
    assert loaded["shape"] == (2,)
    for key, weight in state().items():
        assert torch.equal(loaded["state_dict"][key], weight)


def rewritten(path, pickled):
    """An archive of torch.save with another pickle in it."""
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))


def named(module, name):
    return f"c{module}\n{name}\n".encode()


CHANGES = {
    "defaults": named("torch._utils", "_rebuild_tensor_v2")
    + b"N}X\x0c\x00\x00\x00__defaults__)s\x86b.",
    "attributes": named("torch._utils", "_rebuild_parameter") + b"}X\x05\x00\x00\x00ownedK\x01sb.",
    "class": named("collections", "OrderedDict") + b"}X\x05\x00\x00\x00ownedK\x01sb.",
    "storage": named("torch", "FloatStorage") + b"}X\x05\x00\x00\x00ownedK\x01sb.",
    "inert": named("os", "system") + b"}X\x05\x00\x00\x00ownedK\x01sb.",
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_nothing_is_changed(tmp_path, case):
    from torch import _utils

    before = dict(vars(_utils)), _utils._rebuild_tensor_v2.__defaults__
    rewritten(tmp_path / "a.pt", b"\x80\x02" + CHANGES[case])
    with pytest.raises(ModelLoadError):
        wh.load_mil(tmp_path / "a.pt")
    assert (dict(vars(_utils)), _utils._rebuild_tensor_v2.__defaults__) == before
    owners = _utils._rebuild_parameter, collections.OrderedDict, torch.FloatStorage, Inert
    assert not any(hasattr(owner, "owned") for owner in owners)


OPCODES = {
    "inst": b"(X\x04\x00\x00\x00exitios\nsystem\n.",
    "obj": b"(cos\nsystem\nX\x04\x00\x00\x00exito.",
    "newobj": b"cos\nsystem\nX\x04\x00\x00\x00exit\x85\x81.",
    "stack global": b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93X\x04\x00\x00\x00exit\x85R.",
    "dotted": b"X\x0b\x00\x00\x00collectionsX\x0f\x00\x00\x00OrderedDict.get\x93)R.",
    "extension": b"\x82\x01.",
    "deep": b"(" * 100_000 + b".",
    "endless memo": b"N" + b"r" + struct.pack("<I", 1 << 30) + b".",
    "long text": b"\x8d" + struct.pack("<Q", 1 << 60) + b"a.",
    "empty": b"",
    "garbage": bytes(range(128, 256)),
    "itself": b"}q\x00X\x05\x00\x00\x00modelh\x00s.",
}


@pytest.mark.parametrize("case", OPCODES)
def test_opcodes(tmp_path, case):
    rewritten(tmp_path / "a.pt", b"\x80\x04" + OPCODES[case])
    with pytest.raises(ModelLoadError) as caught:
        wh.load_mil(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)
    (tmp_path / "b.pt").write_bytes(b"\x80\x04" + OPCODES[case])
    with pytest.raises(ModelLoadError):
        wh.load_mil(tmp_path / "b.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "a.pt"))
    with pytest.raises(ModelLoadError, match="code"):
        wh.load_mil(tmp_path / "a.pt")


def test_pickled_modules_are_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / "b.pt")
    (tmp_path / "c.pt").write_bytes(pickle.dumps(state()))
    for name in "abc":
        with pytest.raises(ModelLoadError, match=r"state_dict"):
            wh.load_mil(tmp_path / f"{name}.pt")


def test_tensors_larger_than_the_file(tmp_path):
    huge = torch.zeros(1).expand(1 << 20, 1 << 20)
    weights = state() | {"attention_net.0.weight": huge}
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(ModelLoadError, match="larger than the file"):
        wh.load_mil(tmp_path / "a.pt")


def test_compressed_archives_are_refused(tmp_path):
    torch.save(state() | {"x": torch.zeros(1 << 16)}, tmp_path / "a.pt")
    packed = zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "a.pt") as old, packed as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ModelLoadError, match="compressed"):
        wh.load_mil(tmp_path / "b.pt")


def test_modules_named_are_not_even_imported(tmp_path):
    rewritten(tmp_path / "a.pt", b"\x80\x02" + named("antigravity", "fly_geohash") + b"0}.")
    with pytest.raises(ModelLoadError):
        wh.load_mil(tmp_path / "a.pt")
    assert "antigravity" not in sys.modules
