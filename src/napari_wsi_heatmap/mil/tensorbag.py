"""Features that were saved as a tensor: CLAM's and MIL-Lab's .pt, also safetensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.errors import FeatureError, ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

NAMES: Final = ("features", "feats")
PLAIN: Final = "save the tensor alone: torch.save(features, 'name.pt')"


def read_tensor_bag(path: Path) -> tuple[Any, NDArray[Any] | None]:
    """Read a tensor (N, D) or (1, N, D), and the coordinates (N, 2) (y, x) beside it, if any.

    Nothing in the file is run.

    Raises
    ------
    FeatureError
        If it is damaged, or holds anything but tensors.

    Notes
    -----
    Memory bound: the file.
    """
    import torch

    from napari_wsi_heatmap.models.tensors import check_tensor, read_saved

    try:
        saved = read_saved(path)
        inside = saved if isinstance(saved, dict) else {NAMES[0]: saved}
        tensor = next((inside[name] for name in NAMES if name in inside), None)
        if not isinstance(tensor, torch.Tensor):
            raise FeatureError(f"it holds {_shown(saved)}, no features", path, PLAIN)
        check_tensor(path, "the tensor", tensor)
    except ModelLoadError as error:
        raise FeatureError(error.what.replace("model file", "file"), path, PLAIN) from error
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise FeatureError(f"its features are {tensor.dtype}", path, PLAIN)
    return tensor.detach(), _coords(inside.get("coords"))


def _coords(coords: Any) -> NDArray[Any] | None:
    """(x, y), as all who write such files have it, swapped."""
    return None if coords is None else np.ascontiguousarray(np.asarray(coords)[..., ::-1])


def _shown(saved: Any) -> str:
    if isinstance(saved, dict):
        return ", ".join(repr(str(key)) for key in list(saved)[:4]) or "an empty dict"
    return f"a {type(saved).__name__}"
