"""Names of a model's outputs: which class is meant by one, and what each channel is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import ModelOutputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from napari_wsi_heatmap.models.base import HeatmapModel


def default_names(channels: int) -> tuple[str, ...]:
    """Names of outputs that the model gives none."""
    return ("value",) if channels == 1 else tuple(map(str, range(channels)))


def class_index(chosen: int | str, names: Sequence[str] | None, channels: int) -> int:
    """Number of a class of C, by its name or its index, which may count from the end.

    Raises
    ------
    ModelOutputError
        If there is no such class; names those that there are.
    """
    named = _named(names, channels)
    if isinstance(chosen, int) and -channels <= chosen < channels:
        return chosen % channels
    if chosen in named:
        return named.index(str(chosen))
    indices = "" if channels == 1 else f", or by its index, 0 to {channels - 1}"
    raise ModelOutputError(
        f"there is no output {chosen!r}", do=f"choose one of {', '.join(named)}{indices}"
    )


def output_names(model: HeatmapModel, patches: torch.Tensor, channels: int) -> tuple[str, ...]:
    """Names of all channels of a model's map, those of uncertainty last.

    Parameters
    ----------
    model : HeatmapModel
        Is called once more if it says that not all of its outputs are drawn.
    patches : (n, 3, H, W) float32
    channels : int
        How many it gave for these.

    Raises
    ------
    ModelOutputError
        If it has not as many names as outputs.
    """
    drawn = channels - len(model.added)
    chosen = None if model.output is None else model.chosen_class(patches.clone())
    names = _named(model.names, drawn) if chosen is None else (chosen,)
    return (*names, *model.added)


def _named(names: Sequence[str] | None, channels: int) -> tuple[str, ...]:
    named = default_names(channels) if names is None else tuple(names)
    if len(named) != channels:
        raise ModelOutputError(
            f"the model has {channels} outputs and {len(named)} names",
            ", ".join(named),
            "give one name per output, or none",
        )
    return named
