"""Processes that read a slide through cuCIM on behalf of this one.

Why not in this process: cuCIM crashes on some files (a deflated tile with a predictor, a JPEG
tile larger than its directory says), and for a tile that it cannot decode it prints a line and
returns what was in memory. A process of its own can be watched: when it dies, or prints, that is
an error of the one box it was reading. See `cucim_child`.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import SlideReadError, one_line
from napari_wsi_heatmap.slides import cucim_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.slides.base import Rgb

MOST = 8
"""Processes per slide; about 60 MB each."""
OPEN_S, READ_S = 30.0, 60.0
"""Seconds of silence that are taken for a hang."""


class WorkerError(Exception):
    """cuCIM could not do it; the message says why, in one line."""


class Worker:
    """One process that has the slide open.

    Parameters
    ----------
    job : dict
        ``path``, ``device`` and ``levels``; see `cucim_child.Reader`.

    Attributes
    ----------
    found : dict
        ``shapes`` and ``downsamples`` of the levels as cuCIM sees them.

    Raises
    ------
    WorkerError
        If it cannot be started, or cuCIM cannot open the file.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._pixels = os.memfd_create("pixels")
        self._shared: mmap.mmap | None = None
        self._process = self._start(job)
        try:
            self.found: dict[str, Any] = json.loads(self._reply(OPEN_S))
        except BaseException:
            self.close()
            raise

    def _start(self, job: dict[str, Any]) -> subprocess.Popen[bytes]:
        path = [os.path.abspath(entry) for entry in sys.path if entry]
        told = json.dumps({**job, "pixels": self._pixels, "import_path": path})
        script = str(Path(cucim_child.__file__))
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", script, told],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(self._pixels,),
                bufsize=0,
            )
        except (OSError, ValueError) as error:
            os.close(self._pixels)
            raise WorkerError(f"no process for it can be started: {error}") from error

    def read(self, out: Rgb, level: int, y: int, x: int) -> None:
        """Fill `out` with the box of its size at (y, x) of a level.

        Raises
        ------
        WorkerError
            The worker is not to be used again.
        """
        view = self._share(out.nbytes)
        request = cucim_child.REQUEST.pack(level, y, x, *out.shape[:2])
        try:
            _pipe(self._process.stdin).write(request)
        except OSError as error:
            raise WorkerError(self._death()) from error
        self._reply(READ_S)
        out[:] = view.reshape(out.shape)

    def _share(self, size: int) -> Rgb:
        if self._shared is None or len(self._shared) < size:
            os.ftruncate(self._pixels, size)
            self._shared = mmap.mmap(self._pixels, size)
        return np.frombuffer(self._shared, np.uint8, size)

    def _reply(self, timeout_s: float) -> str:
        code, length = cucim_child.REPLY.unpack(self._bytes(cucim_child.REPLY.size, timeout_s))
        text = self._bytes(length, timeout_s).decode("utf-8", "replace")
        if code:
            raise WorkerError(one_line(text, 160))
        return text

    def _bytes(self, length: int, timeout_s: float) -> bytes:
        pipe, got = _pipe(self._process.stdout), b""
        while len(got) < length:
            ready = select.poll()
            ready.register(pipe, select.POLLIN)
            if not ready.poll(timeout_s * 1000):
                raise WorkerError(f"it did not answer within {timeout_s:g} s")
            more = pipe.read(length - len(got))
            if not more:
                raise WorkerError(self._death())
            got += more
        return got

    def _death(self) -> str:
        self._process.kill()
        code = self._process.wait()
        return f"it crashed ({f'signal {-code}' if code < 0 else f'exit code {code}'})"

    def close(self) -> None:
        """End the process; nothing is left of it."""
        for pipe in (self._process.stdin, self._process.stdout):
            _pipe(pipe).close()
        self._process.kill()
        self._process.wait()
        os.close(self._pixels)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


_inherited: list[Any] = []
"""Workers of the parent process, kept so that nobody ends them here."""


class Workers:
    """As many processes as there are readers at once, at most `MOST`.

    Parameters
    ----------
    start : callable
        ``start() -> Worker``, called when one is needed.
    path : str
        For messages.
    """

    def __init__(self, start: Callable[[], Worker], path: str) -> None:
        self._start, self.path = start, path
        self.closed = False
        self._fresh_process()

    def _fresh_process(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(min(MOST, os.cpu_count() or 1))
        self._idle: list[Worker] = []
        # Also where nobody calls `close`.
        weakref.finalize(self, _end, self._idle, self._pid)

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Worker]:
        """Lend a worker to one reader; one that fails is not lent again."""
        self._leave_parent()
        with self._places:
            worker = self._take()
            try:
                yield worker
            except BaseException:
                worker.close()
                raise
            self._put(worker)

    def close(self) -> None:
        """Refuse further readers and end the workers, each when its last read has ended."""
        self._leave_parent()
        with self._lock:
            self.closed = True
        _end(self._idle, self._pid)

    def _leave_parent(self) -> None:
        if os.getpid() != self._pid:
            _inherited.append(self._idle)
            self._fresh_process()

    def _take(self) -> Worker:
        with self._lock:
            if self.closed:
                raise SlideReadError("the slide is closed", self.path, "open it again")
            if self._idle:
                return self._idle.pop()
        return self._start()

    def _put(self, worker: Worker) -> None:
        with self._lock:
            if not self.closed:
                self._idle.append(worker)
                return
        worker.close()


def _end(workers: list[Worker], pid: int) -> None:
    while workers and os.getpid() == pid:
        workers.pop().close()
