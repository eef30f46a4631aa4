"""The folder of a collecting: a file for each slide, and a record of what is done.

::

    OUT/
      collected.json      plan, names, and for each slide: file, fingerprint, status, windows
      a.csv               named by the slide a.svs
      b.parquet.rows      rows that a parquet file will be made of when the slide is done
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from napari_wsi_heatmap.collectors.sinks import ending_of, sink_of, windows_in
from napari_wsi_heatmap.errors import (
    HeatmapError,
    PlanMismatchError,
    SlideChangedError,
    StoreExistsError,
)
from napari_wsi_heatmap.lock import NAME as LOCK
from napari_wsi_heatmap.lock import StoreLock
from napari_wsi_heatmap.mismatch import refuse_mismatch
from napari_wsi_heatmap.runfolder import PARTIAL, folder_of, reading, writing
from napari_wsi_heatmap.streams.sources import file_names

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_wsi_heatmap.collectors.collector import CollectedPiece
    from napari_wsi_heatmap.collectors.origins import Origin
    from napari_wsi_heatmap.collectors.sink import CollectedSlide, SlideSink

RECORD: Final = "collected.json"
FORMAT: Final = "napari-wsi-heatmap collected"
DONE, BEGUN = "done", "begun"


class CollectedFolder:
    """Files of all slides; what is there is continued.

    Parameters
    ----------
    out : path-like
    origin : Origin
    format : str
    names : sequence of str, str or None
        Of the channels; one text is what their names begin with.

    Raises
    ------
    StoreExistsError
        If the folder holds something else.
    PlanMismatchError
        If it was begun with another plan, format or other names.
    StoreLockedError
        If another process writes there.
    """

    def __init__(self, out: Any, origin: Origin, format: str, names: Any) -> None:
        self.path, self._origin, self._format = folder_of(out), origin, format
        self._names, self._ending = names, ending_of(format)
        self._files = file_names(origin.slides)
        self._sinks: dict[Any, SlideSink] = {}
        self._saving = threading.Lock()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._refuse_foreign()
        self._lock = StoreLock(self.path)
        try:
            self.record = self._continued()
        except BaseException:
            self._lock.release()
            raise

    def _refuse_foreign(self) -> None:
        others = [entry for entry in self.path.iterdir() if entry.name != LOCK]
        if others and not (self.path / RECORD).exists():
            raise StoreExistsError(
                "the folder holds something else", self.path, "choose a new or empty output folder"
            )

    def _continued(self) -> dict[str, Any]:
        plan = {"format": self._format, **self._origin.plan}
        new = {"format": FORMAT, "status": "running", "plan": plan, "slides": {}, "failed": {}}
        if not (self.path / RECORD).exists():
            return new
        with reading(self.path / RECORD, "the record"):
            earlier = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
            refuse_mismatch(plan, earlier["plan"], self.path)
            kept = {name: earlier[name] for name in ("slides", "names") if name in earlier}
            return new | kept

    def file_of(self, slide: Any) -> Path:
        """Where a slide's values are."""
        return self.path / f"{self._files[slide]}{self._ending}"

    def done(self) -> dict[Any, NDArray[np.int64] | None]:
        """Windows (n, 2) of slides that need not be collected again, None for all of a slide.

        Files that an earlier session has begun are gone on with.
        """
        found: dict[Any, NDArray[np.int64] | None] = {}
        for slide, name in self._files.items():
            known = self.record["slides"].get(name)
            if known is not None:
                found[slide] = self._taken_up(slide, known)
        return found

    def _taken_up(self, slide: Any, known: dict[str, Any]) -> NDArray[np.int64] | None:
        if known["status"] == DONE and known["slide"] == str(slide):
            return None  # nothing of it is opened
        with self._origin.look_at(slide) as looked:
            if looked.slide.fingerprint != known["fingerprint"]:
                raise SlideChangedError(
                    "the slide is not the one that the output was begun with",
                    slide,
                    "choose another output",
                )
            if known["status"] == DONE:
                return None
            windows = windows_in(self._format, self.file_of(slide), looked.spec)
            known["windows"] = len(windows)
            self._open(slide, looked, tuple(self.record["names"]))
            return windows

    def counts(self) -> dict[Any, int]:
        """Slide -> number of windows in its file; none of which nothing was kept."""
        known = self.record["slides"]
        files = self._files.items()
        return {slide: known[name]["windows"] for slide, name in files if name in known}

    def add(self, piece: CollectedPiece) -> None:
        """Take a piece; it is on the disk after the next `flush`."""
        if not len(piece):
            return
        with self._saving:
            if piece.slide not in self._sinks:
                self._begin(piece)
            self._sinks[piece.slide].add(piece.windows, piece.values)
            self._about(piece.slide)["windows"] += len(piece)

    def _begin(self, piece: CollectedPiece) -> None:
        if piece.slide not in self._files:
            raise HeatmapError(f"a piece is of {piece.slide!r}", do="give the stream's name of it")
        if self._files[piece.slide] in self.record["slides"]:
            raise HeatmapError(
                "a piece comes after its slide was done", piece.slide, "return it earlier"
            )
        names = self._names_for(piece.values.shape[1])
        with self._origin.look_at(piece.slide) as looked:
            self._open(piece.slide, looked, names)
            self.record["slides"][self._files[piece.slide]] = {
                "slide": str(piece.slide),
                "file": self.file_of(piece.slide).name,
                "fingerprint": looked.slide.fingerprint,
                "status": BEGUN,
                "windows": 0,
            }
        self._save()

    def _open(self, slide: Any, looked: CollectedSlide, names: tuple[str, ...]) -> None:
        about = {"slide": str(slide), **self.record["plan"].get("collector", {})}
        sink = sink_of(self._format, self.file_of(slide), looked, names, about)
        self._sinks[slide] = sink

    def _names_for(self, channels: int) -> tuple[str, ...]:
        names = self._names if self._names is not None else self._origin.names
        if names is None or isinstance(names, str):
            stem = names or "value"
            names = [stem] if channels == 1 else [f"{stem}_{i}" for i in range(channels)]
        if len(names) != channels or self.record.get("names", list(names)) != list(names):
            raise PlanMismatchError(
                f"{len(names)} names for {channels} values", self.path, "give a name for each"
            )
        self.record["names"] = list(names)
        return tuple(names)

    def _about(self, slide: Any) -> dict[str, Any]:
        about: dict[str, Any] = self.record["slides"][self._files[slide]]
        return about

    def flush(self) -> None:
        """Bring all pieces to the disk."""
        with self._saving:
            for sink in tuple(self._sinks.values()):
                sink.flush()
            if self._sinks:
                self._save()

    def finish(self, slide: Any, *, whole: bool = True) -> None:
        """Leave a slide's file valid; `whole`: nothing of it will come any more."""
        with self._saving:
            sink = self._sinks.pop(slide, None)
            if sink is None:
                return
            sink.finish(whole=whole)
            self._about(slide)["status"] = DONE if whole else BEGUN
            self._save()

    @property
    def begun(self) -> tuple[Any, ...]:
        """Slides whose files are being written."""
        return tuple(self._sinks)

    def close(self, status: str) -> None:
        """Leave all files valid, say how it ended, and let others write."""
        failed = {str(name): why for name, why in self._origin.failed.items()}
        windows = self._origin.failed_windows
        self.record |= {"status": status, "failed": failed, "failed_windows": windows}
        with ExitStack() as each:  # the last first, whatever another one raises
            each.callback(self._lock.release)
            each.callback(self._save)
            for slide in self.begun:
                each.callback(self.finish, slide, whole=status == DONE)

    def _save(self) -> None:
        temporary = self.path / f".{RECORD}{PARTIAL[0]}"
        with writing(self.path):
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(self.record, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path / RECORD)
