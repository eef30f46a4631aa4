"""More about the place under the cursor: what napari says of a layer, and what its pixels mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    TextAt = Callable[[int, int], str]


def say_under_cursor(layer: Labels, text_at: TextAt) -> None:
    """Let ``text_at(row, column)`` follow what napari's status bar says of a pixel of a layer.

    napari asks each layer for its `get_status`, in a thread. A function of the layer's own needs
    no class of its own, by whose name napari would no longer know what kind of layer it is.
    """
    known = ref(layer)

    def get_status(position: Any = None, **options: Any) -> dict[str, str]:
        labels = known()
        assert labels is not None
        status = type(labels).get_status(labels, position, **options)
        text = _text(labels, position, text_at, world=options.get("world", False))
        if text:
            status["coordinates"] += f"; {text}"
            status["value"] += f"; {text}"
        return status

    layer.get_status = get_status


def _text(layer: Labels, position: Any, text_at: TextAt, *, world: bool) -> str:
    if position is None or not layer.visible:
        return ""
    place = layer.world_to_data(position) if world else position
    y, x = np.rint(np.asarray(place)[-2:]).astype(int).tolist()
    height, width = layer.data.shape
    return text_at(y, x) if 0 <= y < height and 0 <= x < width else ""
