"""Feature vectors handed to a MIL model, checked before it sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

from napari_wsi_heatmap.errors import FeatureError as FeatureError

if TYPE_CHECKING:
    from torch import Tensor

ENCODERS: Final = {
    384: "kaiko-s, lunit",
    512: "conch_v1",
    768: "ctranspath, conch_v15, phikon, kaiko-b, keep",
    1024: "uni_v1, resnet50 as in CLAM, phikon_v2, gpfm, hibou_l, kaiko-l14, musk",
    1536: "uni_v2, gigapath, hoptimus, openmidnight",
    2048: "a whole resnet50",
    2560: "virchow, virchow2",
    3072: "midnight (cls + mean)",
}
"""Which encoders give vectors of a length."""


def checked(features: Any, in_dim: int, device: torch.device) -> Tensor:
    """Return features (N, D) or (1, N, D) as float32 (N, D) on a device.

    Raises
    ------
    FeatureError
        If they are of another shape or length, no numbers, none at all, or not finite.
    """
    x = _tensor(features)
    if x.ndim == 3 and x.shape[0] == 1:
        x = x[0]
    if x.ndim != 2 or not len(x):
        what = f"features of shape {tuple(x.shape)}, where (N, {in_dim}) is expected"
        raise FeatureError(what, do="give one vector for each patch, and at least one")
    if x.shape[1] != in_dim:
        raise FeatureError(other_length(x.shape[1], in_dim), do="use the features it was made for")
    x = x.to(device, torch.float32)
    finite = x.isfinite().all(1)
    if not finite.all():
        wrong = (~finite).nonzero()[:, 0]
        what = f"{len(wrong)} of {len(x)} feature vectors hold NaN or infinity"
        raise FeatureError(what, f"first: patch {int(wrong[0])}", "extract the features again")
    return x


def _tensor(features: Any) -> Tensor:
    try:
        x = torch.as_tensor(features).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        what = f"a {type(features).__name__} is no array of features"
        raise FeatureError(what, do="give (N, D), numpy or torch") from error
    if x.is_complex() or x.dtype == torch.bool or x.layout != torch.strided:
        raise FeatureError(f"features of {x.dtype}, {x.layout}", do="give plain floats")
    return x


def other_length(given: int, in_dim: int) -> str:
    """Say that vectors are of another length than a checkpoint's, with likely encoders of both."""
    return (
        f"the features have {_vector(given)}, and the checkpoint was trained on {_vector(in_dim)}"
    )


def _vector(length: int) -> str:
    likely = f" (likely {ENCODERS[length]})" if length in ENCODERS else ""
    return f"{length} numbers{likely}"
