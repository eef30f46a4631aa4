"""What tests of MIL in the viewer share: checkpoints with random weights, features, an encoder."""

from __future__ import annotations

import logging
import time

import h5py
import numpy as np
import torch

LENGTH, HIDDEN, ATTENTION, CLASSES = 6, 5, 4, 3
SIDE = 64
"""px of a patch of `write_features`."""


def _layers(seed, shapes):
    random = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        state[f"{name}.weight"] = torch.from_numpy(random.standard_normal(shape).astype("f4"))
        state[f"{name}.bias"] = torch.from_numpy(random.standard_normal(shape[0]).astype("f4") / 9)
    return state


def clam_mb(seed=0, length=LENGTH, classes=CLASSES):
    """CLAM-MB in its authors' layout: each class has an attention of its own."""
    place = "attention_net.3.attention_"
    shapes = {
        "attention_net.0": (HIDDEN, length),
        f"{place}a.0": (ATTENTION, HIDDEN),
        f"{place}b.0": (ATTENTION, HIDDEN),
        f"{place}c": (classes, ATTENTION),
    }
    shapes |= {f"classifiers.{c}": (1, HIDDEN) for c in range(classes)}
    shapes |= {f"instance_classifiers.{c}": (2, HIDDEN) for c in range(classes)}
    return _layers(seed, shapes)


def dsmil(seed=0, classes=2):
    """DS-MIL in its authors' layout: scores depend on all patches, of two definitions."""
    state = _layers(seed, {"i_classifier.fc.0": (classes, LENGTH), "b_classifier.q": (128, LENGTH)})
    random = np.random.default_rng(seed + 1)
    fcc = random.standard_normal((classes, classes, LENGTH)).astype("f4")
    state["b_classifier.fcc.weight"] = torch.from_numpy(fcc)
    state["b_classifier.fcc.bias"] = torch.zeros(classes)
    return state


def save(state, path):
    """A file of `torch.save`."""
    torch.save(state, path)
    return path


def write_features(path, shape=(5, 8), length=LENGTH, origin=(16, 24), step=SIDE):
    """An .h5 of CLAM's: patches on a lattice, some of them missing; returns (features, coords)."""
    random = np.random.default_rng(5)
    rows, cols = np.divmod(np.sort(random.permutation(np.prod(shape))[:-3]), shape[1])
    coords = np.stack([rows, cols], 1) * step + origin
    features = random.standard_normal((len(coords), length)).astype("f4")
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["coords"] = coords[:, ::-1].astype("i4")
        file["coords"].attrs["patch_size_level0"] = SIDE
    return features, coords


class Encoder(torch.nn.Module):
    """(N, 3, 32, 32) -> (N, 6)."""

    window = 32
    name = "small encoder"

    def __init__(self, seconds=0.0):
        super().__init__()
        torch.manual_seed(3)
        self.conv = torch.nn.Conv2d(3, LENGTH, 8, stride=8)
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return torch.tanh(4 * self.conv(x)).mean((2, 3))


def errors_in(caplog):
    """What was logged as an error during a test: what slots raise ends there, see `guarded`."""
    records = [*caplog.get_records("setup"), *caplog.get_records("call"), *caplog.records]
    return [record.getMessage() for record in records if record.levelno >= logging.ERROR]
