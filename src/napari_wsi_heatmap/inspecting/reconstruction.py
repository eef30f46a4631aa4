"""What the decoder of an autoencoder makes of a window, to be looked at beside the window itself.

>>> model = decoder_of(heatmap)                  # None where the model has no decoder
>>> made = reconstruct(model, heatmap.patch(7))  # (64, 64, 3) uint8
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import ModelLoadError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Rgb

WITH_DECODER = ("vae2",)
"""Architectures, as records name them, whose models have a method ``reconstruct``."""
GAP = 2
"""px between a patch and its reconstruction."""


def has_decoder(heatmap: Heatmap) -> bool:
    """Whether the record names a model that can reconstruct windows, in the size of a window."""
    spec = heatmap.run["model"].get("spec")
    return isinstance(spec, dict) and spec.get("arch") in WITH_DECODER


def decoder_of(heatmap: Heatmap) -> Any:
    """Load the model of a heatmap again, from where its file lay.

    Returns
    -------
    HeatmapModel or None
        With a method ``reconstruct``; None if the model has none.

    Raises
    ------
    ModelLoadError
        If the file is missing, or is another one now.
    """
    if not has_decoder(heatmap):
        return None
    from napari_wsi_heatmap.models.again import load_again

    record = heatmap.run["model"]
    model = load_again(record["spec"])
    if model.sha256 != record["sha256"]:
        what = "the model is not the one that this map is of"
        raise ModelLoadError(what, record["spec"].get("path"), "put the file back")
    return model


def reconstruct(model: Any, patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reconstruct windows from their latent variables; nothing is drawn at random.

    Parameters
    ----------
    model : HeatmapModel
        As `decoder_of` returns it.
    patches : (64, 64, 3) or (n, 64, 64, 3) uint8
        As the model got them.

    Returns
    -------
    uint8
        Of the same shape; 0…1 rounded to 0…255.

    Raises
    ------
    ModelLoadError
        If the decoder makes another size than the patches have.
    """
    import torch

    several = patches[None] if patches.ndim == 3 else patches
    batch = torch.from_numpy(np.ascontiguousarray(several)).permute(0, 3, 1, 2).float() / 255
    pixels = model.reconstruct(batch).permute(0, 2, 3, 1).cpu().numpy()
    if pixels.shape != several.shape:
        sizes = f"windows of {several.shape[1:3]} px, reconstructions of {pixels.shape[1:3]} px"
        raise ModelLoadError(sizes, model.name, "choose a window of that size")
    made = np.rint(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    return made[0] if patches.ndim == 3 else made


def squared_error(patch: Rgb, made: Rgb) -> float:
    """Mean squared difference of two pictures, both in 0…1: what ``output="error"`` maps."""
    return float(np.square((patch.astype(np.float64) - made) / 255).mean())


def side_by_side(patch: Rgb, made: Rgb) -> Rgb:
    """(H, 2 W + 2, 3): a patch, a white line, its reconstruction."""
    line = np.full((len(patch), GAP, 3), 255, np.uint8)
    return np.concatenate([patch, line, made], axis=1)
