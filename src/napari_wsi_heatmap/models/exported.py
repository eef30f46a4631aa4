"""Files of `torch.export.save` (.pt2). They are code."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.filemodel import FileModel, Source
from napari_wsi_heatmap.models.fixedbatch import BatchRange, in_batches
from napari_wsi_heatmap.models.sniff import EXPORTED
from napari_wsi_heatmap.models.torchscript import broken
from napari_wsi_heatmap.models.trust import read_code

if TYPE_CHECKING:
    import os

    from napari_wsi_heatmap.models.trust import Code, Trust

    Program = torch.export.ExportedProgram


class ExportedModel(FileModel):
    """A program that was exported for certain shapes.

    Parameters
    ----------
    program : torch.export.ExportedProgram
    source : Source
    **settings
        Attributes of `HeatmapModel`, checked. Its window is the one it was exported for. Where it
        was exported for one size of batches, that is its batch size; others are cut to it.

    Raises
    ------
    ModelLoadError
        If it takes anything but one batch of patches, or a window is asked for that it cannot take.
    """

    def __init__(self, program: Program, source: Source, **settings: Any) -> None:
        self._program, shape = program, input_shape(program, source.path)
        self._batches = batches_of(program, shape[0])
        stated = _stated(shape, self._batches, settings, source.path)
        super().__init__(_module(program), source, **(stated | settings))
        self._device = torch.device("cpu")

    def forward(self, batch: torch.Tensor) -> Any:
        """Run the program on batches of a size that it takes."""
        return in_batches(self._module, batch, self._batches)

    @property
    def replicable(self) -> bool:
        """False: torch moves a program from device to device in place, with all that share it."""
        return False

    def to(self, device: torch.device) -> None:
        """Move the program to `device`: also where its graph names the one it was exported on."""
        if device == self._device:
            return
        from torch.export.passes import move_to_device_pass

        self._program = move_to_device_pass(self._program, device)
        self._module, self._device = _module(self._program), device

    def restore(self) -> None:
        """Free the device's memory."""
        self.to(torch.device("cpu"))


def load_exported(
    path: str | os.PathLike[str], *, trust: Trust = None, **settings: Any
) -> ExportedModel:
    """Load a torch.export file, if there is consent to it.

    Parameters
    ----------
    path : path
    trust : str, sequence of str or bool, optional
        As for `read_code`.
    **settings
        Attributes of `HeatmapModel`, checked.

    Raises
    ------
    UntrustedModelError
        Without consent.
    ModelLoadError
        If torch cannot load it, or it cannot be run over windows.
    """
    code = read_code(Path(path), EXPORTED, trust)
    model = ExportedModel(program_of(code), Source(code.path, code.sha256), **settings)
    model.made_from(path)
    return model


def program_of(code: Code) -> Program:
    """Make the program of a trusted file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(io.BytesIO(code.content))
    except Exception as error:
        raise broken(code.path, EXPORTED, error) from error


def input_shape(program: Program, path: Path) -> tuple[Any, ...]:
    """Shape that a program takes; a side that may vary is no int."""
    names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    shapes = [node.meta["val"].shape for node in nodes if node.name in names]
    if len(names) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
        what = f"the program takes {len(names)} inputs, not one batch (N, 3, H, W)"
        raise ModelLoadError(what, path, "export it with one batch of patches")
    return tuple(shapes[0])


def batches_of(program: Program, side: Any) -> BatchRange:
    """Sizes of batches that a program takes."""
    if isinstance(side, int):
        return BatchRange(side, side)
    limits = program.range_constraints.get(side.node.expr)
    least, most = str(getattr(limits, "lower", 1)), str(getattr(limits, "upper", None))
    return BatchRange(
        max(1, int(least)) if least.isdigit() else 1, int(most) if most.isdigit() else None
    )


def _stated(
    shape: tuple[Any, ...], batches: BatchRange, settings: dict[str, Any], path: Path
) -> dict[str, Any]:
    """What the shapes say about window and batch size."""
    stated: dict[str, Any] = {}
    if batches.most is not None and batches.most == batches.least and batches.most > 1:
        stated["batch_size"] = batches.most
    sides = shape[2:]
    if "transform" in settings or not all(isinstance(side, int) for side in sides):
        return stated
    if settings.get("window", sides) != sides:
        what = f"the program was exported for windows of {sides[0]} x {sides[1]} px"
        raise ModelLoadError(what, path, f"leave window= away, or set it to {sides}")
    return stated | {"window": sides}


def _module(program: Program) -> torch.nn.Module:
    module = program.module()
    for part in module.modules():  # what it does was decided when it was exported
        part.training = False
    return module
