"""Weights put into layers: into an nn.Module handed over, or an architecture named as in timm."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from napari_wsi_heatmap.errors import ModelLoadError, one_line
from napari_wsi_heatmap.models.filemodel import FileModel, Source
from napari_wsi_heatmap.models.files import NO_ARCH
from napari_wsi_heatmap.models.normalize import Normalize
from napari_wsi_heatmap.models.tensors import read_state

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    State = dict[str, torch.Tensor]

PREFIXES: Final = ("module.", "model.", "net.", "backbone.", "encoder.", "_orig_mod.")
"""What DataParallel, Lightning, torch.compile and training scripts put before every name."""
SHOWN = 3
"""Names that a message tells."""


def load_arch(path: str | os.PathLike[str], arch: Any = None, **settings: Any) -> FileModel:
    """Load a state dict into an architecture.

    Parameters
    ----------
    path : path
        safetensors, or a state dict of `torch.save`.
    arch : str or nn.Module
        Name in timm, as "resnet18"; or the layers. The number of classes is that of the head in
        the file; without a head the model gives features.
    **settings
        Attributes of `HeatmapModel`, checked. Unless given, window and transform (mean and std)
        are those that timm states for the architecture.

    Raises
    ------
    ModelLoadError
        If there is no such architecture, or the weights are not exactly those of it.
    """
    path = Path(path)
    state = read_state(path)
    if isinstance(arch, torch.nn.Module):
        put_weights(arch, state, path)
        return FileModel(arch.eval(), Source(path), **settings)
    if not isinstance(arch, str) or not arch:
        do = "give it: arch='resnet18' (a name of timm, or an nn.Module)"
        raise ModelLoadError(NO_ARCH, path, do)
    module, stated = _of_timm(arch, state, path)
    put_weights(module, state, path)
    model = FileModel(module.eval(), Source(path), **(stated | settings))
    model.made_from(path, stated["transform"], arch=arch)
    return model


def with_weights(module: Any, weights: str | os.PathLike[str]) -> Any:
    """Load a state dict into layers that were handed over, in place, and return them."""
    if not isinstance(module, torch.nn.Module):
        what = f"a {type(module).__name__} takes no weights="
        raise ModelLoadError(what, weights, "hand over an nn.Module, or a name of timm")
    put_weights(module, read_state(Path(weights)), Path(weights))
    return module


def put_weights(module: torch.nn.Module, state: State, path: Path) -> None:
    """Copy weights into layers: all of them, and nothing else.

    Raises
    ------
    ModelLoadError
        Naming what is missing, not expected or of another shape; the layers are then as before.
    """
    wanted = {k: v for k, v in module.state_dict().items() if isinstance(v, torch.Tensor)}
    state = without_prefix(state, wanted)
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    if missing or unexpected:
        told = [_told("missing", missing), _told("not expected", unexpected)]
        what = "the weights are of another architecture: " + ", ".join(filter(None, told))
        raise ModelLoadError(what, path, "choose the architecture that they were trained in")
    for name, tensor in wanted.items():
        _check_fits(name, state[name], tensor, path)
    try:
        module.load_state_dict(state, strict=True)
    except Exception as error:
        what = f"the weights cannot be loaded: {one_line(error, 150)}"
        raise ModelLoadError(what, path) from error


def without_prefix(state: State, wanted: Iterable[str]) -> State:
    """Take off what stands before all names, unless it belongs to them."""
    wanted = set(wanted)
    while not wanted & set(state):
        prefix = next((p for p in PREFIXES if state and all(n.startswith(p) for n in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _told(what: str, names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:SHOWN])
    return f"{len(names)} {what} ({shown}{', …' if len(names) > SHOWN else ''})"


def _check_fits(name: str, given: torch.Tensor, wanted: torch.Tensor, path: Path) -> None:
    if given.shape != wanted.shape:
        what = f"{name} has shape {tuple(given.shape)}, and {tuple(wanted.shape)} is needed"
        raise ModelLoadError(what, path, "choose the architecture that they were trained in")
    if given.is_floating_point() != wanted.is_floating_point() or given.is_complex():
        what = f"{name} is of {given.dtype}, and {wanted.dtype} is needed"
        raise ModelLoadError(what, path, "choose the architecture that they were trained in")


def _of_timm(arch: str, state: State, path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Layers of an architecture with as many classes as the weights have, and what timm states."""
    timm = imported_timm(arch)
    if not timm.is_model(arch):
        known = timm.list_models()
        alike = difflib.get_close_matches(arch, known, SHOWN) or [n for n in known if arch in n]
        close = ", ".join(alike[:SHOWN])
        do = f"there are {close}" if close else "timm.list_models() lists them"
        raise ModelLoadError(f"timm knows no architecture {arch!r}", path, do)
    with torch.device("meta"):  # names only: no memory
        names = timm.create_model(arch, pretrained=False).state_dict()
    stated = timm.get_pretrained_cfg(arch)
    classes = _classes(without_prefix(state, names), names, stated.classifier)
    module = timm.create_model(arch, pretrained=False, **classes)
    size = stated.input_size[1:]
    return module, {"window": size, "transform": Normalize(stated.mean, stated.std)}


def _classes(state: State, names: State, classifier: Any) -> dict[str, int]:
    """Number of rows of the head's weight; 0 if there is no head, nothing if it is another."""
    head = classifier if isinstance(classifier, str) else next(iter(classifier or ()), "")
    weight, usual = state.get(f"{head}.weight"), names.get(f"{head}.weight")
    if weight is None:
        return {"num_classes": 0}
    # Of a head of another width nobody knows how much memory it would take: the file is refused.
    fits = usual is not None and weight.shape[1:] == usual.shape[1:] and weight.numel() > 0
    return {"num_classes": len(weight)} if fits else {}


def imported_timm(wanted: str) -> Any:
    """Import timm.

    Raises
    ------
    ModelLoadError
        If it is absent, or broken beside this torch.
    """
    try:
        import timm
    except ImportError as error:
        if error.name == "timm":
            do = "install napari-wsi-heatmap[encoders], or hand over the nn.Module with weights="
            raise ModelLoadError(f"{wanted!r} needs timm, which is missing", do=do) from None
        raise _broken(error) from error
    except Exception as error:
        raise _broken(error) from error
    return timm


def _broken(error: Exception) -> ModelLoadError:
    do = "install torch, torchvision and timm of versions that suit each other"
    return ModelLoadError(f"timm cannot be imported: {one_line(error, 150)}", do=do)
