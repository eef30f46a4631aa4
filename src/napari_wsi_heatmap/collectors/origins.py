"""Where pieces come from: a stream and somebody's processing of it, or a run of the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np

from napari_wsi_heatmap.collectors.collector import CollectedPiece, collector_of, pieces_of
from napari_wsi_heatmap.collectors.sink import CollectedSlide
from napari_wsi_heatmap.errors import HeatmapError
from napari_wsi_heatmap.slides import open_slide
from napari_wsi_heatmap.slides.base import Slide
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from napari_wsi_heatmap.engine import Run
    from napari_wsi_heatmap.streams.dataset import Stream

    Windows = NDArray[np.int64]


class Origin(ABC):
    """Gives pieces, and says of which slides they are."""

    @property
    @abstractmethod
    def slides(self) -> tuple[Any, ...]:
        """What the slides are called, in their order."""

    @property
    @abstractmethod
    def plan(self) -> dict[str, Any]:
        """What decides windows and values, as plain values."""

    @property
    def one_by_one(self) -> bool:
        """Whether nothing of a slide comes after something of a later one."""
        return True

    @property
    def failed(self) -> dict[Any, str]:
        """Slides that could not be read."""
        return {}

    @property
    def failed_windows(self) -> int:
        """Number of windows that could not be read."""
        return 0

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the channels, if it knows them."""
        return None

    @abstractmethod
    def expected(self, done: Mapping[Any, Windows | None]) -> int:
        """Number of windows to come; a stream opens all its slides to know."""

    @abstractmethod
    def look_at(self, slide: Any) -> Any:
        """Context of a `CollectedSlide`."""

    @abstractmethod
    def batches(self, done: Mapping[Any, Windows | None]) -> Iterator[list[CollectedPiece]]:
        """Pieces of batch after batch, without windows that are done."""


@final
class StreamOrigin(Origin):
    """A stream, and what is made of its batches."""

    def __init__(self, stream: Stream, process: Any) -> None:
        self._stream, self._collector = stream, collector_of(process)
        self._ids = {source.id: source for source in stream.sources}

    @property
    def slides(self) -> tuple[Any, ...]:
        """What the stream calls them."""
        return tuple(self._ids)

    @property
    def plan(self) -> dict[str, Any]:
        """The settings that decide windows, and what the collector says of itself."""
        asked, settings = self._stream.settings.reading, self._stream.settings
        shared = {name: getattr(asked, name) for name in SHARED}
        own = {name: getattr(settings, name) for name in OWN}
        return {name: _plain(value) for name, value in (shared | own).items()} | {
            "collector": _plain(self._collector.about)
        }

    @property
    def one_by_one(self) -> bool:
        """Not of random windows."""
        return not self._stream.settings.random

    @property
    def failed(self) -> dict[Any, str]:
        """Slides that the stream left out."""
        return self._stream.failed

    @property
    def failed_windows(self) -> int:
        """Windows that the stream left out."""
        return len(self._stream.failed_windows)

    def expected(self, done: Mapping[Any, Windows | None]) -> int:
        """Windows of all slides that can be opened, or those of a pass of random ones."""
        settings = self._stream.settings
        if settings.random:
            return settings.epoch_size or 0
        return sum((self._stream.without(done) if done else self._stream).count_windows().values())

    @contextmanager
    def look_at(self, slide: Any) -> Iterator[CollectedSlide]:
        """Open it for as long as it is looked at."""
        place = self._ids[slide].place
        opened = open_slide(place, icc=self._stream.settings.reading.icc)
        try:
            yield CollectedSlide(opened, self._stream.layout(slide).grid.spec)
        finally:
            if not isinstance(place, Slide):
                opened.close()

    def batches(self, done: Mapping[Any, Windows | None]) -> Iterator[list[CollectedPiece]]:
        """Pieces of each batch; none after the collector is finished."""
        stream = self._stream.without(done) if done else self._stream
        self._stream = stream
        collector = self._collector
        try:
            collector.begin()
            with closing(cast("Any", iter(stream))) as batches:
                for batch in batches:
                    yield list(pieces_of(collector.process(batch), batch))
                    if collector.finished:
                        raise Ended
        finally:
            collector.end()


class Ended(Exception):
    """The collector has seen enough."""


SHARED = (
    "window",
    "stride",
    "mpp",
    "level",
    "edge",
    "tissue",
    "tissue_min",
    "roi",
    "resize",
    "icc",
)
OWN = ("sampling", "transform", "patch_transform", "regions", "cut", "read")


@final
class RunOrigin(Origin):
    """A run of the engine over one slide."""

    def __init__(self, run: Run) -> None:
        self._run, self._name = run, run.plan.slide.path

    @property
    def slides(self) -> tuple[Any, ...]:
        """The one."""
        return (self._name,)

    @property
    def plan(self) -> dict[str, Any]:
        """The run's own."""
        return self._run.plan.identity

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the model."""
        return self._run.plan.names

    @property
    def failed_windows(self) -> int:
        """Windows that could not be read."""
        return self._run.progress.failed

    def expected(self, done: Mapping[Any, Windows | None]) -> int:
        """Windows that the run has still to compute."""
        del done
        progress = self._run.progress
        return progress.planned - progress.done - progress.failed

    @contextmanager
    def look_at(self, slide: Any) -> Iterator[CollectedSlide]:
        """The run's slide."""
        del slide
        yield CollectedSlide(self._run.plan.slide, self._run.plan.grid.spec)

    def batches(self, done: Mapping[Any, Windows | None]) -> Iterator[list[CollectedPiece]]:
        """Pieces of the windows that are done; what is there already is computed, not kept."""
        known = done.get(self._name, np.zeros((0, 2)))
        if known is None:
            return
        there = {tuple(window) for window in known.tolist()}
        with closing(cast("Any", self._run.pieces())) as pieces:
            for piece in pieces:
                windows = np.rint(piece.positions).astype(np.int64)
                new = [tuple(window) not in there for window in windows.tolist()]
                kept = np.array(new, bool) & (state_of(piece.state) == DONE)
                yield [CollectedPiece(self._name, windows[kept], piece.values[kept])]


def origin_of(given: Any, process: Any = None) -> Origin:
    """Tell a stream from a run."""
    if hasattr(given, "pieces") and hasattr(given, "plan"):
        if process is not None:
            raise HeatmapError("a run has its model", do="leave out process, or give a stream")
        return RunOrigin(given)
    if not hasattr(given, "without"):
        raise HeatmapError(
            f"{type(given).__name__} gives no pieces", do="give a stream (wh.stream) or a Run"
        )
    return StreamOrigin(given, process)


def _plain(value: Any) -> Any:
    """What JSON can hold of a setting: functions by their name, arrays by their digest."""
    import hashlib

    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)
