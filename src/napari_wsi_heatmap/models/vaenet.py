"""VAE2, the variational autoencoder of the notebooks "Uncorking the I/O Bottleneck of Bio-Imaging".

Its layers bear the names of the notebooks' checkpoints. Nothing is drawn at random here: the latent
variables are the means `mu`, and a reconstruction is decoded from these.
"""

from __future__ import annotations

from torch import Tensor, nn

SIDE = 64
"""Pixels along the reconstruction."""
SIDES = range(62, 78)
"""Pixels along an input: only these leave 2 x 2 cells after four convolutions of stride 2."""
LATENTS = 32
HIDDEN = 1024


class ToColumn(nn.Module):
    """(N, D) -> (N, D, 1, 1)."""

    def forward(self, flat: Tensor) -> Tensor:
        """Add two axes of one pixel."""
        return flat[:, :, None, None]


class VAE2(nn.Module):
    """Encoder to 32 latent variables and decoder back to 64 x 64 pixels; 4,348,931 parameters.

    References
    ----------
    JHancox/BioImaging@692e990, Notebook_2 (Apache-2.0): layers, names and shapes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = _encoder(), _decoder()
        self.fc1 = nn.Linear(HIDDEN, LATENTS)  # mean
        self.fc2 = nn.Linear(HIDDEN, LATENTS)  # log of the variance, which only training uses
        self.fc3 = nn.Linear(LATENTS, HIDDEN)

    def encode(self, patches: Tensor) -> Tensor:
        """(N, 3, 64, 64) in 0…1 -> the means of the latent variables (N, 32)."""
        mu: Tensor = self.fc1(self.encoder(patches))
        return mu

    def decode(self, latents: Tensor) -> Tensor:
        """(N, 32) -> (N, 3, 64, 64) in 0…1."""
        patches: Tensor = self.decoder(self.fc3(latents))
        return patches

    def forward(self, patches: Tensor) -> Tensor:
        """Reconstruct: (N, 3, 64, 64) -> the same, from the means."""
        return self.decode(self.encode(patches))


def _names() -> frozenset[str]:
    layers = ["fc1", "fc2", "fc3", *(f"encoder.{i}" for i in (0, 2, 4, 5, 7))]
    layers += [f"decoder.{i}" for i in (1, 3, 4, 6, 8)]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    norms = [f"{norm}.{s}" for norm in ("encoder.5", "decoder.4") for s in statistics]
    return frozenset(norms + [f"{name}.{kind}" for name in layers for kind in ("weight", "bias")])


NAMES_OF_WEIGHTS = _names()
"""Known without building the layers."""


def _encoder() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, stride=2), nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
        nn.Conv2d(64, 128, 4, stride=2), nn.BatchNorm2d(128), nn.ReLU(),
        nn.Conv2d(128, 256, 4, stride=2), nn.ReLU(),
        nn.Flatten(),
    )  # fmt: skip


def _decoder() -> nn.Sequential:
    return nn.Sequential(
        ToColumn(),
        nn.ConvTranspose2d(HIDDEN, 128, 5, stride=2), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 5, stride=2), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 6, stride=2), nn.ReLU(),
        nn.ConvTranspose2d(32, 3, 6, stride=2), nn.Sigmoid(),
    )  # fmt: skip
