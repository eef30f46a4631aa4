"""Threads that work off batches: each prepares one while another's is in the model.

A `Line` is the way of batches to one device. Its workers take work under a lock, so that all of
it is numbered; they prepare it side by side, run the model in the order of the numbers (side by
side only where the model allows it), and the results come out in that order too: what a model
sees, and what a user gets, does not depend on how many threads there are.

Memory bound: one more batch than there are workers.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch

from napari_wsi_heatmap import strays
from napari_wsi_heatmap.errors import HeatmapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

POLL_S: Final = 0.05
"""Seconds after which a waiting thread looks whether it is still wanted."""
_settling = threading.Lock()
"""Held while torch's number of threads, which threads that begin take over, is another one."""


class Work(Protocol):
    """One batch, or something that is only passed on."""

    def prepare(self) -> None:
        """Whatever may be done before its turn."""

    def compute(self) -> None:
        """Run the model; on a GPU, have it begun."""

    def arrive(self) -> None:
        """Wait until the values are there."""


@dataclass(frozen=True)
class Plant:
    """How batches reach one device.

    Parameters
    ----------
    work : iterator of Work
        Iterated by one thread at a time.
    workers : int
        Threads; 2 at least keep a device busy.
    in_turn : bool
        Whether one batch after the other goes through the model.
    threads : int
        Of torch's own, for each worker.
    device : torch.device
    """

    work: Iterator[Any]
    workers: int
    in_turn: bool
    threads: int
    device: torch.device


def torch_threads() -> int:
    """Threads that torch uses for what is not split up among workers."""
    with _settling:
        return torch.get_num_threads()


class _Line:
    """State of a plant at work; whoever reads or changes it holds the condition `changed`."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.taking = threading.Lock()
        self.taken = self.turn = self.given = 0
        self.room = plant.workers + 1
        self.results: dict[int, Any] = {}
        self.ended = False
        cuda = plant.device.type == "cuda"
        self._stream = torch.cuda.Stream(plant.device) if cuda else None  # type: ignore[no-untyped-call]

    @property
    def over(self) -> bool:
        return self.ended and self.given == self.taken

    def on_device(self) -> AbstractContextManager[Any]:
        """One stream for all workers: their kernels queue up, their copies back do not wait."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


class Workers:
    """Works off what one or more plants give, and yields it when it is done.

    Parameters
    ----------
    plants : iterable of Plant
    stopped : callable
        Whether to stop after the batch at hand; looked at often.
    """

    def __init__(self, plants: Iterable[Plant], stopped: Callable[[], bool]) -> None:
        self._lines = [_Line(plant) for plant in plants]
        self._changed = threading.Condition()
        self._wanted_elsewhere, self._closed = stopped, False
        self._threads: list[threading.Thread] = []
        self._pid = os.getpid()

    def __iter__(self) -> Iterator[Any]:
        self._start()
        while (found := self._wait_for(self._ready)) is not None:
            line, result = found
            if line is None:
                return
            if isinstance(result, BaseException):
                yield from self._ready_beside(line)
                raise result
            yield result
            self._refuse_fork()

    def _ready_beside(self, failed: _Line) -> list[Any]:
        """What other devices have computed when one of them fails."""
        with self._changed:
            return [
                result
                for line in self._lines
                for number, result in sorted(line.results.items())
                if line is not failed and not isinstance(result, BaseException)
            ]

    def _refuse_fork(self) -> None:
        if os.getpid() != self._pid:
            raise HeatmapError(
                "a run cannot go on in a fork, which has none of its threads",
                do="begin it in the process that iterates it",
            )

    def close(self, patience_s: float) -> bool:
        """Stop the threads, and wait for the batches at hand, but no longer than that.

        Returns
        -------
        bool
            Whether all have ended.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        until = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def interrupt(self) -> None:
        """Break off what is at hand, as Python ends: it would be in the way of what is saved."""
        for thread in self._threads:
            strays.interrupt(thread)

    def join(self) -> None:
        """Wait until all threads have ended, however long that takes."""
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        with _settling:
            before, ready = torch.get_num_threads(), threading.Semaphore(0)
            try:
                for line in self._lines:
                    for _ in range(line.plant.workers):
                        self._start_one(line, ready)
                for _ in self._threads:
                    ready.acquire()
            finally:
                # It is each thread's own by now; threads that begin later get back the old one.
                torch.set_num_threads(before)

    def _start_one(self, line: _Line, ready: threading.Semaphore) -> None:
        name = f"wsi-worker-{len(self._threads)}"
        thread = threading.Thread(target=self._run, args=(line, ready), name=name, daemon=True)
        thread.start()
        strays.watch(thread)
        self._threads.append(thread)

    def _run(self, line: _Line, ready: threading.Semaphore) -> None:
        torch.set_num_threads(line.plant.threads)
        torch.get_num_threads()  # a thread takes over the last number set when it first needs it
        ready.release()
        with line.on_device():
            while self._wait_for(lambda: self._room(line)):
                number, work = self._take(line)
                if work is None:
                    return
                self._put(line, number, self._work_off(line, number, work))

    def _take(self, line: _Line) -> tuple[int, Any]:
        """Next work and its number; None at the end, the error if there is one."""
        with line.taking:
            work: Any
            try:
                work = next(line.plant.work, None)
            except BaseException as error:  # noqa: BLE001 - raised where the results are
                work = error
            with self._changed:
                number = line.taken
                line.taken += work is not None
                line.ended |= work is None
                self._changed.notify_all()
        return number, work

    def _work_off(self, line: _Line, number: int, work: Any) -> Any:
        # Even a SystemExit of a model: it would end this thread, and the run would never end.
        try:
            if isinstance(work, BaseException):
                return work
            work.prepare()
            if not line.plant.in_turn:
                work.compute()
            elif not self._in_turn(line, number, work.compute):
                return None
            work.arrive()
        except BaseException as error:  # noqa: BLE001 - raised where the results are
            return error
        else:
            return work
        finally:
            self._pass_on(line, number)

    def _in_turn(self, line: _Line, number: int, compute: Callable[[], None]) -> bool:
        """Call it when its turn has come; False if it is not wanted any more."""
        if not self._wait_for(lambda: line.turn == number):
            return False
        compute()
        self._pass_on(line, number)
        return True

    def _pass_on(self, line: _Line, number: int) -> None:
        """Let the next one have its turn, once those before this one have had theirs."""
        if not line.plant.in_turn or not self._wait_for(lambda: line.turn >= number):
            return
        with self._changed:
            line.turn = max(line.turn, number + 1)
            self._changed.notify_all()

    def _put(self, line: _Line, number: int, result: Any) -> None:
        with self._changed:
            line.results[number] = result
            self._changed.notify_all()

    def _room(self, line: _Line) -> bool:
        """Take room for one more batch, if there is some."""
        line.room -= (found := line.room > 0)
        return found

    def _ready(self) -> tuple[_Line | None, Any] | None:
        """The next result; (None, None) if there will be none."""
        for line in self._lines:
            if line.given in line.results:
                result = line.results.pop(line.given)
                line.given, line.room = line.given + 1, line.room + 1
                self._changed.notify_all()
                return line, result
        return (None, None) if all(line.over for line in self._lines) else None

    def _wait_for(self, found: Callable[[], Any]) -> Any:
        """What `found` gives once that is something; None if it is not wanted any more."""
        with self._changed:
            while not self._stopped:
                if value := found():
                    return value
                self._changed.wait(POLL_S)
        return None

    @property
    def _stopped(self) -> bool:
        return self._closed or self._wanted_elsewhere()
