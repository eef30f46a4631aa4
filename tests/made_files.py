"""Model files that tests make: a small network in each format that people exchange."""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager

import torch
from safetensors.torch import save_file


class Small(torch.nn.Module):
    """Two convolutions and a head: (N, 3, H, W) -> (N, classes)."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3)
        )
        self.head = torch.nn.Linear(5, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


def small(seed: int = 0, classes: int = 2) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small(classes).eval()


@contextmanager
def quiet():
    """torch's own notices that a format is on its way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_safetensors(path, module):
    save_file(module.state_dict(), path)
    return path


def write_weights(path, module, *, wrapper=None, prefix="", legacy=False):
    state = {prefix + name: value for name, value in module.state_dict().items()}
    state = {wrapper: state, "epoch": 3, "lr": 1e-3} if wrapper else state
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


def write_script(path, module):
    with quiet():
        torch.jit.save(torch.jit.script(module), path)
    return path


def write_program(path, module, *, batch=4, side=32, least=None, most=None):
    """Export for one batch size, or for `least` to `most`."""
    shapes = None
    if most is not None:
        shapes = ({0: torch.export.Dim("batch", min=least, max=most)},)
    example = (torch.rand(batch, 3, side, side),)
    with quiet():
        program = torch.export.export(module, example, dynamic_shapes=shapes)
        torch.export.save(program, buffer := io.BytesIO())
    path.write_bytes(buffer.getvalue())
    return path
