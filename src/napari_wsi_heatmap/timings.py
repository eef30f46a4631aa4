"""Where the time of a run goes: reading, waiting, copying, the model, writing.

Each part of a run adds to one `Timings`, once a region, a batch or a save; `bottleneck` makes one
sentence of it. Shares are those of the time that the run was active, pauses left out.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Item = TypeVar("Item")

SECONDS: Final = {
    "active": "active",
    "reading": "reading",
    "waiting": "waiting_for_reading",
    "copying": "copying",
    "model": "model",
    "writing": "writing",
    "saving": "waiting_for_writing",
}
"""Kind -> its name under ``seconds`` of `run.json`.

active: of the run, pauses left out; reading: summed over the threads that read; waiting: for
regions, by what computes; copying: cut, copied to the device, resized, cast; model: until its
values were there; writing: of the thread that saves; saving: the run itself waited for that.
"""
BYTES: Final = {"reading": "read", "copying": "copied", "writing": "written"}
"""Kind -> its name under ``bytes``: decoded pixels, pixels of windows, values and states."""

SHORTEST_S: Final = 3.0
"""Seconds of a run before which its shares say more of its beginning than of itself."""
MUCH: Final = 0.25
"""Of the time; a wait for less is not worth a sentence."""
MOST: Final = 0.75
"""A model that takes this much of the time is what limits a run."""
SHOWN: Final = {"waiting": "reading", "copying": "copying", "model": "model", "saving": "writing"}
"""Kinds that share the time of a run among them -> what it spent it on, in a word."""


class Timings:
    """Seconds and bytes of one session of a run; may be added to from several threads.

    Parameters
    ----------
    device, readers, at_once
        As for `bottleneck`.

    >>> timings = Timings("cuda", readers=4)
    >>> with timings.spent("model"):
    ...     pass
    >>> timings.add("reading", 0.5, nbytes=1 << 20)
    >>> timings.record["bytes"]["read"]
    1048576
    """

    def __init__(self, device: str = "cpu", readers: int = 1, at_once: int = 1) -> None:
        self._device, self._readers, self._at_once = device, readers, at_once
        self._seconds = dict.fromkeys(SECONDS, 0.0)
        self._bytes = dict.fromkeys(BYTES, 0)
        self._adding = threading.Lock()

    def add(self, what: str, seconds: float = 0.0, nbytes: int = 0) -> None:
        """Add to one kind of `SECONDS`; bytes only to those of `BYTES`."""
        with self._adding:
            self._seconds[what] += seconds
            if nbytes:
                self._bytes[what] += nbytes

    @contextmanager
    def spent(self, what: str, nbytes: int = 0) -> Iterator[None]:
        """Add the seconds until the end of the block, and the bytes if it does not raise."""
        began = time.perf_counter()
        try:
            yield
        except BaseException:
            nbytes = 0
            raise
        finally:
            self.add(what, time.perf_counter() - began, nbytes)

    def each(self, what: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; add the seconds until each of them is there."""
        iterator = iter(items)
        while True:
            with self.spent(what):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of this session, by the names of `run.json`."""
        with self._adding:
            return {name: self._seconds[what] for what, name in SECONDS.items()}

    @property
    def record(self) -> dict[str, Any]:
        """``seconds``, ``bytes``, ``shares`` and ``bottleneck`` of this session, for `run.json`."""
        return self.added_to({})

    def added_to(self, earlier: Mapping[str, Any]) -> dict[str, Any]:
        """The same, of this session and those whose ``seconds`` and ``bytes`` are in a record."""
        with self._adding:
            nbytes = {name: self._bytes[what] for what, name in BYTES.items()}
        seconds = _sum(earlier.get("seconds", {}), self.seconds)
        return {
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "bytes": _sum(earlier.get("bytes", {}), nbytes),
            "shares": shares_line(seconds, self._at_once),
            "bottleneck": self._bottleneck(seconds),
        }

    @property
    def shares(self) -> str:
        """What this session spends its time on: see `shares_line`; empty at its beginning."""
        seconds = self.seconds
        return shares_line(seconds, self._at_once) if seconds["active"] >= SHORTEST_S else ""

    @property
    def bottleneck(self) -> str:
        """What limits this session, in a sentence: see the function `bottleneck`."""
        return self._bottleneck(self.seconds)

    def _bottleneck(self, seconds: Mapping[str, float]) -> str:
        return bottleneck(seconds, self._device, self._readers, at_once=self._at_once)


def _sum(earlier: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {**earlier, **{name: earlier.get(name, 0) + value for name, value in now.items()}}


def spent_before(record: Mapping[str, Any]) -> dict[str, Any]:
    """What earlier sessions have recorded, for `Timings.added_to`.

    Raises
    ------
    TypeError, ValueError, KeyError, AttributeError
        If it is none.
    """
    return {
        "seconds": {str(name): float(s) for name, s in record["seconds"].items()},
        # Records of before bytes were counted have none.
        "bytes": {str(name): int(n) for name, n in record.get("bytes", {}).items()},
    }


def shares(seconds: Mapping[str, float], at_once: int = 1) -> dict[str, float]:
    """Share of the active time, 0…1, that each kind of `SHOWN` took; empty before there is any.

    Threads overlap: what goes on while the model computes costs a run nothing. So the others share
    the time that is left beside the model, and all are 1 at most together.

    Parameters
    ----------
    seconds : mapping
        As in `run.json`.
    at_once : int
        How many batches may be in a model at the same time, on whatever devices.
    """
    whole = seconds.get("active", 0.0) * at_once
    if whole <= 0:
        return {}
    share = {kind: seconds.get(SECONDS[kind], 0.0) / whole for kind in SHOWN}
    model = min(1.0, share.pop("model"))
    beside = min(1.0, (1 - model) / max(sum(share.values()), 1e-9))
    return {**{kind: beside * value for kind, value in share.items()}, "model": model}


def shares_line(seconds: Mapping[str, float], at_once: int = 1) -> str:
    """Shares in a few words, "reading 12 % · model 80 %"; those that are nothing are left out."""
    each = shares(seconds, at_once)
    return " · ".join(
        f"{word} {_percent(each[kind])}"
        for kind, word in SHOWN.items()
        if each.get(kind, 0) >= 0.005
    )


def bottleneck(
    seconds: Mapping[str, float],
    device: str,
    readers: int,
    *,
    cores: int | None = None,
    at_once: int = 1,
) -> str:
    """Say in a plain sentence what limits a run; empty where there is nothing to say.

    Parameters
    ----------
    seconds : mapping
        As in `run.json`, or ``timings.seconds`` of a session.
    device : str
        "cpu", "cuda", …: what the model runs on.
    readers : int
        Threads that read.
    cores : int, optional
        Of the machine, for the advice; default: of this one.
    at_once : int
        How many batches may be in a model at the same time.
    """
    share = shares(seconds, at_once)
    if not share or seconds["active"] < SHORTEST_S:
        return ""
    model = share.pop("model")
    worst = max(share, key=lambda kind: share[kind])
    if share[worst] >= MUCH:
        return _sentence(worst, share[worst], device, readers, cores or available_cores())
    return f"the model takes {_percent(model)} of the time" if model >= MOST else ""


def _sentence(kind: str, share: float, device: str, readers: int, cores: int) -> str:
    if kind == "waiting":
        who = "the model" if device == "cpu" else "the GPU"
        do = "add reader threads" if readers < cores else "the disk or the decoder is the limit"
        return f"{who} waits {_percent(share)} of the time for reading: {do}"
    if kind == "saving":
        return f"the run waits {_percent(share)} of the time for the disk it writes to"
    return f"cutting and resizing windows takes {_percent(share)} of the time"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
