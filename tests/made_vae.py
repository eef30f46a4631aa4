"""A checkpoint of VAE2 as the notebooks save theirs: seeded weights, no training."""

from __future__ import annotations

import torch

from napari_wsi_heatmap.models.vaenet import VAE2


def write_checkpoint(path, seed=0):
    """Write it: from DataParallel, wrapped."""
    torch.manual_seed(seed)
    state = {f"module.{name}": tensor for name, tensor in VAE2().state_dict().items()}
    torch.save({"epoch": 20, "state_dict": state}, path)
    return path
