"""The pixels of a window exactly as the model got them, made again from the slide.

They are those that a run hands to the model: of the level that was read, resized as the run
resized them, with the background where a window hangs over. The model got them as float32,
divided by 255, and behind that its own normalisation, which is left away here: what it does with
the colours could not be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import GridError
from napari_wsi_heatmap.inspecting.slide import slide_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Rgb, Slide

    Index = NDArray[np.int64]


def patches(
    heatmap: Heatmap, slide: Slide | str | Path | None, index: ArrayLike
) -> NDArray[np.uint8]:
    """Patches of windows, as the model got them.

    Parameters
    ----------
    heatmap : Heatmap
    slide : Slide, path or None
        That it was computed on; None: where it lay then.
    index : (n,) int
        Flat indices of windows.

    Returns
    -------
    (n, H, W, 3) uint8
        ``patches / 255``, in float32, is what the model, or its normalisation, was given. For a
        map that others made: the pixels of the window as they are stored.

    Raises
    ------
    GridError
        If there is no such window.
    SlideError
        If the slide is missing, another one, or cannot be read there.

    Notes
    -----
    Memory bound: what it returns, and one window as it is read.
    """
    found = list(each_patch(heatmap, slide, index))
    return np.stack(found) if found else np.zeros((0, *patch_shape(heatmap), 3), np.uint8)


def each_patch(
    heatmap: Heatmap, slide: Slide | str | Path | None, index: ArrayLike
) -> Iterator[Rgb]:
    """Patches (H, W, 3) uint8 of windows, one after the other; parameters as for `patches`."""
    chosen = checked_index(heatmap, index)
    with slide_of(heatmap, slide) as seen:
        look = Look.of(heatmap, seen)
        for y, x in look.origins(heatmap, chosen).tolist():
            yield look.resized(seen.read_region(look.level, y, x, *look.footprint))


def checked_index(heatmap: Heatmap, index: ArrayLike) -> Index:
    """Flat indices (n,) of windows; GridError if there is no such window."""
    given = np.atleast_1d(np.asarray(index))
    size = heatmap.grid.size
    whole = given.size == 0 or (np.issubdtype(given.dtype, np.integer) and given.ndim == 1)
    if not whole or (given.size and (given.min() < 0 or given.max() >= size)):
        raise GridError(f"no window {index!r}", do=f"give whole numbers from 0 to {size - 1}")
    return given.astype(np.int64)


def patch_shape(heatmap: Heatmap) -> tuple[int, int]:
    """(H, W) that the model saw of a window."""
    return heatmap.grid.spec.window


@dataclass(frozen=True)
class Look:
    """How windows of a heatmap are read."""

    level: int
    downsample: tuple[float, float]
    """Of the level, as the slide has it."""
    footprint: tuple[int, int]
    """(height, width) read, pixels of the level."""
    size: tuple[int, int]
    """(H, W) that the model sees."""
    resize: str
    device: str
    """Kind of device that resized."""

    @classmethod
    def of(cls, heatmap: Heatmap, slide: Slide) -> Look:
        """Find out from the record of a run; the slide is that of the run."""
        spec, run = heatmap.grid.spec, heatmap.run
        plan, settings = run.get("plan", {}), run.get("settings", {})
        down = slide.levels[spec.level].downsample
        height, width = (
            max(1, round(side / factor))
            for side, factor in zip(spec.footprint_level0, down, strict=True)
        )
        seen = (height, width) if "imported" in run else spec.window  # nobody knows what it saw
        resize = plan.get("resize") or settings.get("resize") or "pillow"
        device = plan.get("device") or settings.get("device") or "cpu"
        return cls(spec.level, down, (height, width), seen, resize, str(device))

    def origins(self, heatmap: Heatmap, index: Index) -> Index:
        """Top-left corners (n, 2) of windows, pixels of the level."""
        positions = heatmap.grid.positions(index)
        return np.rint(positions / np.asarray(self.downsample)).astype(np.int64)

    def resized(self, pixels: Rgb) -> Rgb:
        """Bring a window to the size that the model sees."""
        if pixels.shape[:2] == self.size:
            return pixels
        import torch

        from napari_wsi_heatmap.resize import resize_patches

        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self._torch_device())
        sized = resize_patches(batch, self.size, self.resize)[0]
        return np.ascontiguousarray(sized.permute(1, 2, 0).cpu().numpy())

    def _torch_device(self) -> str:
        """Where "torch" resizes to the same bits; "pillow" does so everywhere."""
        import torch

        kind = self.device.partition(":")[0]
        there = (kind == "cuda" and torch.cuda.is_available()) or (
            kind == "mps" and torch.backends.mps.is_available()
        )
        return kind if there and self.resize == "torch" else "cpu"
