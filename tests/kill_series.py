"""Runs that are killed (−9) at random instants and continued, again and again, until they are done.

Each life is a process of its own, forked from a server that has imported everything and computed
nothing. What it computes it notes in a file, so that a window that was saved and is computed
again is seen.
"""

from __future__ import annotations

import multiprocessing
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import napari_wsi_heatmap as wh
from made import mean_rgb, noise_slide, quarter_means
from made_features import with_features
from napari_wsi_heatmap import store, writer
from napari_wsi_heatmap.dense import DenseMap
from napari_wsi_heatmap.errors import StoreError
from napari_wsi_heatmap.features import UnsavedFeatures
from napari_wsi_heatmap.growing import GrowingMap
from napari_wsi_heatmap.states import DONE, state_of

if TYPE_CHECKING:
    from pathlib import Path

PLAIN, DENSE = "one value a window", "a map a window"
FEATURES, DEVICES = "a value and features a window", "one value a window, two devices"
KINDS = PLAIN, FEATURES, DEVICES, DENSE
STRIDES, BATCH = dict.fromkeys(KINDS, 12) | {DENSE: 32}, dict.fromkeys(KINDS, 16) | {DENSE: 8}
SLOWEST_S = 0.4
"""A life is killed at most so long after its beginning, or after its first piece."""
EARLY = 0.2
"""Share of the kills that count from the beginning, while a run is planned and its output made."""
SAVED_S = 0.01
"""Between saves, so that most kills hit one."""
PACE_S = dict.fromkeys(KINDS, 0.004) | {DENSE: 0.001}
"""A piece in a life that is killed, so that it lasts for several lives on any machine."""
CHUNK = 8
"""Cells along a chunk: dozens, so that kills fall between them."""


class Means(torch.nn.Module):
    """What two devices can have one each of."""

    def forward(self, batch):
        return mean_rgb(batch)


def model_of(kind):
    makers = {FEATURES: with_features, DEVICES: Means}
    return makers[kind]() if kind in makers else {PLAIN: mean_rgb, DENSE: quarter_means}[kind]


def settings_of(kind):
    devices = {"device": "cpu,cpu"} if kind == DEVICES else {}
    own = {"stride": STRIDES[kind], "batch_size": BATCH[kind]}
    return {"window": 64, "tissue": "none", **own, **devices}


def slide():
    return noise_slide(900, 1200)


def live(kind, out, notes, begun, computing, pace_s):
    """One life: begin or continue, note each piece that was computed."""
    writer.StoreWriter.__init__.__defaults__ = (SAVED_S,)
    GrowingMap.chunk = DenseMap.chunk = UnsavedFeatures.chunk = store.STATE_CHUNK = CHUNK
    begun.set()
    with open(notes, "a") as file:
        for piece in wh.run(slide(), model_of(kind), out=out, **settings_of(kind)):
            print(*piece.index.tolist(), file=file, flush=True)
            computing.set()
            time.sleep(pace_s)


@dataclass
class Series:
    """What happened in a series of kills."""

    kind: str
    kills: int = 0
    resumes: int = 0
    maps: int = 0
    windows: int = 0
    saved: int = 0
    """Windows that were found saved by a later life, summed over lives."""
    lost: int = 0
    """Windows called done whose values were not there, or not right; or never done at the end."""
    again: int = 0
    """Windows that were saved, and were computed again: none, but for dense maps, which keep no
    outputs and need those of windows that share a chunk with unfinished ones."""
    doubled: int = 0
    """Windows that came twice in one life."""
    bytes_differing: int = 0


class Killing:
    """Kills lives of one kind of run, and compares what they leave with an undisturbed run.

    Parameters
    ----------
    kind : str
    folder : Path
        Empty.
    seed : int
        Of the instants.
    """

    def __init__(self, kind: str, folder: Path, seed: int = 0):
        self.kind, self.folder = kind, folder
        self.random = random.Random(seed)
        self.series = Series(kind)
        self.whole = wh.compute_heatmap(
            slide(), model_of(kind), progress=False, **settings_of(kind)
        )
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["napari_wsi_heatmap.launch"])

    def kill(self, kills: int) -> Series:
        """Kill so many lives, beginning a map anew whenever one is done; let the last one end."""
        while self.series.kills < kills:
            out = self.folder / f"{self.series.maps}.zarr"
            while self.series.kills < kills and not self._life(out, killed=True):
                pass
            self._life(out, killed=False)
            self._compare(out)
        return self.series

    def _life(self, out: Path, *, killed: bool) -> bool:
        """Whether it came to its end."""
        series, notes, before = self.series, out.with_suffix(".txt"), self._saved(out)
        notes.write_text("")
        begun, computing = self._processes.Event(), self._processes.Event()
        living = self.kind, out, notes, begun, computing, PACE_S[self.kind] * killed
        process = self._processes.Process(target=live, args=living)
        process.start()
        assert begun.wait(60)
        early, instant = self.random.random() < EARLY, self.random.uniform(0, SLOWEST_S)
        while not early and process.exitcode is None and not computing.wait(0.01):
            pass
        process.join(instant if killed else 300)
        ended = process.exitcode is not None
        assert not ended or process.exitcode == 0
        process.kill()
        process.join()
        process.close()
        series.kills += not ended
        index = computed(notes)
        series.doubled += len(index) - len(set(index))
        if before is not None:
            series.resumes += 1
            series.saved += int(before.sum())
            series.again += int(before.ravel()[index].sum())
        return ended

    def _saved(self, out: Path):
        """(Y, X) bool: what is called done on disk; it must be there, and right."""
        try:
            found = wh.open_heatmap(out)
        except StoreError as error:
            assert "no heatmap" in str(error)  # noqa: PT017 - killed before there was a record
            return None
        done = state_of(found.state) == DONE
        if self.kind != DENSE:
            wrong = (bits(found.values) != bits(self.whole.values)).any(0)
            if self.whole.features is not None:
                wrong |= (bits(found.features[:]) != bits(self.whole.features[:])).any(-1)
            self.series.lost += int((wrong & done).sum())
        return done

    def _compare(self, out: Path):
        found, series = wh.open_heatmap(out), self.series
        assert found.run["status"] == "done"
        series.maps, series.windows = series.maps + 1, series.windows + found.grid.size
        series.lost += int((state_of(found.state) != DONE).sum())
        series.bytes_differing += bytes_differing(found, self.whole)
        assert not list(out.rglob("*.partial")) + list(out.glob(".run.json.*"))


def computed(notes: Path) -> list[int]:
    """Flat indices of the windows that a life noted; its last line may be cut off."""
    lines = notes.read_text().split("\n")[:-1]
    return [int(index) for line in lines for index in line.split()]


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


def bytes_differing(found, whole) -> int:
    """Of values, states, positions and features."""
    names = ("values", "state", *(["features"] if whole.features is not None else []))
    pairs = [(getattr(h, name)[:] for h in (found, whole)) for name in names]
    return sum(
        int((np.frombuffer(a.tobytes(), np.uint8) != np.frombuffer(b.tobytes(), np.uint8)).sum())
        for a, b in (*pairs, (found.positions, whole.positions))
    )
