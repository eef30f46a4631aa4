"""Arrays of an output, read piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.runfolder import reading

if TYPE_CHECKING:
    from pathlib import Path

THE_HEATMAP = "the heatmap"


class SavedArray:
    """An array of an output; a chunk is read when it is indexed, a damaged one is a StoreError."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.chunks: tuple[int, ...] = array.chunks

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self[:], dtype)

    def __getitem__(self, at: Any) -> Any:
        do = "resume the run: it computes again what is damaged"
        with reading(self._path, THE_HEATMAP, do):
            return np.asarray(self._array[at])
