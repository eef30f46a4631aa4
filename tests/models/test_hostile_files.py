"""None of many hostile or broken model files runs anything, fills the memory or is misread.

They are loaded in a process of their own, which also has a limit of time.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hostile_models
from hostile_pickles import payloads

MOST_GROWN = 64
"""MB that trying to load a file may cost; the largest of the files is 17 MB."""
SAYS = {
    "lfs": "a Git-LFS pointer",
    "html": "an HTML page",
    "empty": "is empty",
    "pickle-layers": "a pickle, which is code; it is never opened",
    "pt-layers": "save its state_dict",
    "pt-os-system": "posix.system",
    "zip-cut-4": "only a part of the file is here",
    "zip-bomb": "compressed",
    "zip-twice": "two members of one name",
    "st-cut-20": "truncated",
    "st-shape-nan": "damaged",
    "sd-stride-0": "larger than the file",
    "sd-module": "a pickled model",
    "torch-package": "torch.package",
    "npz": "npz",
    "pipe": "no plain file",
    "device": "no plain file",
    "folder": "folder",
    "loop-a": "symbolic links",
    "jit-writes": "TorchScript is code",
    "pt2-pickle": "torch.export is code",
}
"""What the line says of some of them."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each file, by name."""
    folder = tmp_path_factory.mktemp("hostile") / "files"
    folder.mkdir()
    names = hostile_models.write_all(folder)
    words = [sys.executable, hostile_models.__file__, str(folder)]
    told = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert told.returncode == 0, told.stderr[-2000:]
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert [row["name"] for row in rows] == names
    return {row["name"]: row for row in rows}


def test_there_are_many(outcomes):
    assert len(outcomes) >= 150


def test_none_runs_its_payload(outcomes):
    assert [name for name, row in outcomes.items() if row["ran"]] == []


def test_the_payloads_do_run_where_they_are_let(tmp_path):
    """Or the test above would prove nothing."""
    canary = tmp_path / "canary"
    for name in ("os-system", "eval", "exec", "global-text", "inst", "obj", "memo-hides-it"):
        pickle.loads(payloads(canary)[name])
        canary.unlink()
    with hostile_models.quiet():
        hostile_models.write_code(tmp_path, canary)
        torch.jit.load(tmp_path / "jit-writes")
    assert canary.exists()


def test_each_is_refused_in_one_line(outcomes):
    for name, row in outcomes.items():
        for how, text in row["errors"]:
            assert how == "refused", (name, text)
            assert text, name
            assert len(text.splitlines()) == 1, (name, text)
            assert "weights_only" not in text, (name, text)


def test_each_names_the_file(outcomes):
    for name, row in outcomes.items():
        for _, text in row["errors"]:
            assert f"{Path('files') / name}" in text, (name, text)


def test_memory_is_bounded(outcomes):
    assert {n: row["grown"] for n, row in outcomes.items() if row["grown"] > MOST_GROWN} == {}


@pytest.mark.parametrize(("name", "says"), SAYS.items())
def test_each_is_called_what_it_is(outcomes, name, says):
    assert says in outcomes[name]["errors"][0][1]
