"""What a MIL model says of a slide, with everything that tells where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.runfolder import folder_of, read_record, reading

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.models.mil.bag import Bag
    from napari_wsi_heatmap.slides.base import Slide

    Values = NDArray[np.float32]

FOLDER = "mil"
"""Where a store keeps results, one heatmap store each: ``OUT.zarr/mil/<checkpoint>.zarr``."""


@dataclass(frozen=True, eq=False)
class MilResult:
    """The result of a MIL model for one slide of N patches.

    Attributes
    ----------
    bag : Bag
        Logits and probabilities (C,), raw scores and weights (N, K), prediction.
    coords : (N, 2) or None
        Top-left corner (y, x) of each patch, level-0 pixels.
    patch_size : (float, float) or None
        (height, width), level-0 pixels.
    index : (N,) int64 or None
        Which windows of a store's grid, or list, the patches are.
    provenance : mapping
        Checkpoint (path, sha256, type, sizes), definition of the attention, encoder and plan of
        the features; plain values for JSON.
    notices : tuple of str
        What the user should know, a line each.
    path : Path or None
        The store that holds it.
    """

    bag: Bag
    coords: NDArray[Any] | None
    patch_size: tuple[float, float] | None
    index: NDArray[np.int64] | None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    path: Path | None = None

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.bag)

    @property
    def prediction(self) -> int | None:
        """Class of the highest probability; None without a classifier."""
        return self.bag.prediction

    @property
    def probabilities(self) -> Values:
        """(C,), two of one logit."""
        return self.bag.probabilities

    @property
    def patch_score(self) -> Values:
        """(N,): what is drawn, stored and named."""
        return self.bag.patch_score

    def score_of(self, branch: int) -> Values:
        """What is drawn (N,) for a class."""
        return self.bag.score_of(branch)

    def save(
        self, out: str | os.PathLike[str], slide: Slide | None = None, *, name: str | None = None
    ) -> MilResult:
        """Write it as a heatmap store, whole or not at all.

        Parameters
        ----------
        out : path
            Of features from a store: that store; it keeps the result in its folder ``mil``. Else
            a new heatmap store.
        slide : Slide, optional
            What features from a file belong to; needed for these.
        name : str, optional
            Instead of the checkpoint's, within a store.

        Returns
        -------
        MilResult
            The same, with `path`.

        Raises
        ------
        StoreError
            If it cannot be written, or nothing says where the patches lie.
        """
        from napari_wsi_heatmap.mil import resultstore

        path = folder_of(out)
        if self.index is not None:
            written = resultstore.save_in_store(self, path, name)
        else:
            written = resultstore.save_listed(self, path, slide)
        return replace(self, path=written)

    def heatmap(self, slide: Slide | None = None) -> Heatmap:
        """As a heatmap: channel 0 is what is drawn, then raw score, weight, instance logits.

        Parameters
        ----------
        slide : Slide, optional
            Needed where it is not in a store yet.
        """
        from napari_wsi_heatmap.heatmap import open_heatmap
        from napari_wsi_heatmap.mil import resultstore

        if self.path is not None:
            return open_heatmap(self.path)
        return resultstore.listed_heatmap(self, slide)


def open_mil(path: str | os.PathLike[str]) -> MilResult:
    """Open a result that was saved.

    Parameters
    ----------
    path : path
        The result's own store, or the store of features that keeps one result.

    Raises
    ------
    StoreError
        If there is none, or more than one.
    """
    from napari_wsi_heatmap.mil.resultstore import read_result

    folder = folder_of(path)
    record = read_record(folder)
    if "mil" in record:
        with reading(folder, "the result of the MIL model", "score the slide again"):
            return read_result(folder, record)
    found = results_in(folder)
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "score it with a checkpoint"
        raise StoreError(f"it keeps {len(found)} results of MIL models", folder, names)
    return open_mil(found[0])


def results_in(out: str | os.PathLike[str]) -> list[Path]:
    """Paths of the results that a store keeps, by name."""
    folder = folder_of(out) / FOLDER
    return sorted(p for p in folder.glob("*.zarr") if not p.name.startswith("."))
