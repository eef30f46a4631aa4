"""Variational autoencoders: the notebooks' VAE2, from a checkpoint as the notebooks make it.

The map shows how badly a window is reconstructed, and its 32 latent variables are the features.
Inference draws nothing at random, on any device.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import torch

from napari_wsi_heatmap.errors import ModelLoadError
from napari_wsi_heatmap.models.filemodel import FileModel, Source
from napari_wsi_heatmap.models.statedict import put_weights, without_prefix
from napari_wsi_heatmap.models.tensors import read_state
from napari_wsi_heatmap.models.vaenet import LATENTS, NAMES_OF_WEIGHTS, SIDE, SIDES, VAE2

if TYPE_CHECKING:
    from collections.abc import Mapping

Tensor = torch.Tensor

ARCH: Final = "vae2"
ERROR: Final = "error"
LATENT: Final = "latent"
RECONSTRUCTION: Final = "reconstruction"
NAMES: Final = {
    ERROR: (ERROR,),
    LATENT: tuple(f"latent_{i}" for i in range(LATENTS)),
    RECONSTRUCTION: ("red", "green", "blue"),
}
"""What may be drawn, and the names of its channels."""
LIMITS: Final = {ERROR: None, LATENT: None, RECONSTRUCTION: (0.0, 1.0)}


def load_vae(path: Path, **settings: Any) -> VaeModel:
    """Load VAE2 from a checkpoint: weights, bare or in a wrapper, with or without a prefix.

    Raises
    ------
    ModelLoadError
        If it is no file of weights, or they are not exactly those of VAE2.
    """
    return VaeModel(read_state(path), path=path, **settings)


def is_vae(state: Mapping[str, Tensor]) -> bool:
    """Whether weights have exactly the names of VAE2's, but for a prefix."""
    return set(without_prefix(dict(state), NAMES_OF_WEIGHTS)) == NAMES_OF_WEIGHTS


@final
class VaeModel(FileModel):
    """VAE2 with given weights.

    Parameters
    ----------
    state : mapping of str to tensor
        Weights; a prefix before all names is taken off.
    path : Path, optional
        Where they came from.
    **settings
        Attributes of `HeatmapModel`, checked. ``output`` chooses what is drawn:
        ``"error"``, the mean squared difference of a patch and its reconstruction, both in 0…1;
        ``"latent"``, the 32 latent variables as channels; ``"reconstruction"``, its pixels.

    Raises
    ------
    ModelLoadError
        If weights are missing, too many or of another shape, or there is no such output.
    """

    window = (SIDE, SIDE)
    features = LATENT
    output = ERROR
    names: tuple[str, ...] | None = (ERROR,)

    def __init__(
        self, state: Mapping[str, Tensor], *, path: Path | None = None, **settings: Any
    ) -> None:
        net = VAE2()
        put_weights(net, dict(state), path or Path(ARCH))
        self.net = net.eval()
        super().__init__(net, Source(path or Path(ARCH)), **settings)
        self.name = ARCH
        if path is not None:
            self.made_from(path, arch=ARCH)

    def settle(self, **settings: Any) -> None:
        """Take over settings; the names are those of the output, unless given."""
        output = settings.get("output", self.output)
        if output not in NAMES:
            raise ModelLoadError(f"output={output!r}", do=f"it must be one of {', '.join(NAMES)}")
        if "output" in settings:
            self.names, self.limits = NAMES[output], LIMITS[output]
        super().settle(**settings)
        self._refuse_size()

    def _refuse_size(self) -> None:
        # Only the encoder takes other sizes, since the reconstruction has one.
        sides = SIDES if self.output == LATENT else range(SIDE, SIDE + 1)
        if not all(side in sides for side in self.window):
            least, most = sides[0], sides[-1]
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise ModelLoadError(f"window={self.window}", do=f"VAE2 takes {wanted} px each way")

    @property
    def sha256(self) -> str:
        """Hex digest of layers, weights and output, which here decides what is computed at all."""
        return hashlib.sha256(f"{super().sha256} {self.output}".encode()).hexdigest()

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        """Encode, and decode if what is drawn needs it."""
        latents = self.net.encode(batch)
        if self.output == LATENT:
            return {LATENT: latents}
        reconstruction = self.net.decode(latents)
        if self.output == RECONSTRUCTION:
            return {LATENT: latents, RECONSTRUCTION: reconstruction}
        error = (reconstruction.float() - batch.float()).square().mean((1, 2, 3))
        return {LATENT: latents, ERROR: error}

    def reconstruct(self, batch: Tensor) -> Tensor:
        """What the decoder makes of patches, to be shown beside them.

        Parameters
        ----------
        batch : (N, 3, 64, 64) float32
            RGB in 0…1, on the model's device.

        Returns
        -------
        (N, 3, 64, 64) float32
            RGB in 0…1.
        """
        with torch.inference_mode():
            seen = batch if self.transform is None else self.transform(batch)
            pixels: Tensor = self.net.eval()(seen)
            return pixels.float()
