"""Training on several slides: regions read in a way of your own, many random windows cut from each.

    python examples/custom_region_reader.py SLIDE SLIDE ...

A region is large and read now and then; windows of several regions are mixed, so a batch sees
several slides. The reader here evens out the stain of the whole region before windows are cut from
it, which one window alone could not tell.
"""

import sys

import numpy as np
import torch
from torch.utils.data import DataLoader

import napari_wsi_heatmap as wh

TARGET = np.array([200.0, 160.0, 190.0])
"""Mean colour that every region is brought to."""


def evened_out(slide, y, x, height, width):
    """Read a region; called by several threads. (y, x, height, width): pixels of the level."""
    pixels = slide.slide.read_region(slide.level, y, x, height, width).astype(np.float32)
    shifted = pixels * (TARGET / pixels.mean((0, 1)))
    return shifted.clip(0, 255).astype(np.uint8)


def turned(patch):
    """Augment one patch (3, H, W)."""
    return torch.rot90(patch, int(torch.randint(4, ())), (1, 2))


def train(slides, *, steps=50, workers=0, window=64):
    """A small autoencoder on random windows; returns its loss step by step."""
    stream = wh.stream(
        slides,
        window=window,
        sampling="random",
        seed=0,
        epoch_size=steps * 32,
        windows_per_region=32,
        mix=4,
        read=evened_out,
        patch_transform=turned,
        batch_size=32,
    )
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU(), torch.nn.ConvTranspose2d(8, 3, 4, 4)
    )
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for x, _, _ in DataLoader(stream, batch_size=None, num_workers=workers):
        loss = torch.nn.functional.mse_loss(net(x), x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    losses = train(sys.argv[1:], workers=2)
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f} in {len(losses)} steps")
