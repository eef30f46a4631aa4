"""A patch as the dock shows it: of an autoencoder with its reconstruction beside it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_wsi_heatmap.errors import ModelError
from napari_wsi_heatmap.inspecting.reconstruction import (
    decoder_of,
    has_decoder,
    reconstruct,
    side_by_side,
    squared_error,
)

if TYPE_CHECKING:
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Rgb


class ShownPatch(NamedTuple):
    """A picture, and what is said of it."""

    pixels: Rgb
    line: str


class KeptDecoder:
    """The model of one heatmap, loaded when a patch of it is first shown. For threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: tuple[str, Any] | None = None

    def shown(self, heatmap: Heatmap, patch: Rgb) -> ShownPatch:
        """The patch, beside it what the model makes of it, if it is one that does so."""
        if not has_decoder(heatmap):
            return ShownPatch(patch, "")
        try:
            made = reconstruct(self._model(heatmap), patch)
        except ModelError as error:
            return ShownPatch(patch, f"No reconstruction: {error}")
        error = squared_error(patch, made)
        line = f"Right: its reconstruction (mean squared error {error:.4f})"
        return ShownPatch(side_by_side(patch, made), line)

    def _model(self, heatmap: Heatmap) -> Any:
        sha256 = heatmap.run["model"]["sha256"]
        with self._lock:
            if self._held is None or self._held[0] != sha256:
                self._held = sha256, decoder_of(heatmap)
            return self._held[1]

    def let_go(self) -> None:
        """Forget the model."""
        self._held = None
