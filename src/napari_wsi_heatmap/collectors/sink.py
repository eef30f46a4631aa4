"""What every file of a slide can do while pieces of the slide come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import ExportError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowSpec
    from napari_wsi_heatmap.slides.base import Slide

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]


@dataclass(frozen=True)
class CollectedSlide:
    """The slide that a sink is of, and how its windows were read."""

    slide: Slide
    spec: WindowSpec


class SlideSink(ABC):
    """One slide's file.

    Parameters
    ----------
    path : Path
        The file; it may hold what an earlier session has written.
    of : CollectedSlide
    names : tuple of str
        One per channel.
    about : dict
        What is recorded of how the values came about.
    """

    def __init__(
        self, path: Path, of: CollectedSlide, names: tuple[str, ...], about: dict[str, Any]
    ) -> None:
        self.path, self.of, self.names, self.about = path, of, names, about

    @abstractmethod
    def add(self, windows: Index, values: Values) -> None:
        """Take the values of windows (n, 2)."""

    @abstractmethod
    def flush(self) -> None:
        """Bring to the disk what was added."""

    @abstractmethod
    def finish(self, *, whole: bool) -> None:
        """Leave a valid file; `whole`: nothing will be added to it any more."""


def no_maps(format: str, values: Values, path: Path) -> ExportError:
    """Error where a format has one row of values a window."""
    return ExportError(
        f"{format} has no place for maps of {values.shape[1:]} values a window",
        path,
        "return (N, C), or choose pdmcsv",
    )
