"""One OpenSlide handle for many threads, replaced when it fails, closed when nobody reads.

Three facts about OpenSlide make this necessary. After any read error a handle answers
everything with that error for ever. Closing it while another thread reads aborts the process.
And an open handle does not survive a fork.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

import openslide

from napari_wsi_heatmap.errors import SlideReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_inherited: list[Any] = []
"""Handles of the parent process; they stay referenced, for closing them here is not allowed."""


class _Opened:
    """One opening of the file: closed once it is not lent any more and nobody reads."""

    def __init__(self, osr: Any) -> None:
        self.osr = osr
        self.readers = 1


class Handle:
    """A slide's handle, counted by its readers.

    Parameters
    ----------
    open_file : callable
        ``open_file() -> openslide.OpenSlide``; called when a handle is needed. What it raises
        goes to the reader that needed the handle.
    path : str
        For messages.

    Notes
    -----
    `borrow` counts readers under a lock that is never held while the file is opened or read, so
    `close` returns at once, also while a read is stalled.
    """

    def __init__(self, open_file: Callable[[], Any], path: str) -> None:
        self._open_file, self.path = open_file, path
        self.openings = 0
        self._closed = False
        self._fresh_process()

    def _fresh_process(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._current: _Opened | None = None

    @contextlib.contextmanager
    def borrow(self, *, alone: bool = False) -> Iterator[Any]:
        """Lend the handle to one reader.

        Parameters
        ----------
        alone : bool
            Open one for this reader only, so that no other reader's error can reach it; if the
            reader succeeds, it becomes the common one where that is missing.

        Yields
        ------
        openslide.OpenSlide
            Not to be closed, nor kept afterwards.

        Raises
        ------
        SlideReadError
            If the slide was closed. An OpenSlideError of the reader passes through, and the
            handle it came from is not lent again.
        """
        self._leave_parent()
        opened = self._open() if alone else self._enter()
        try:
            yield opened.osr
        except openslide.OpenSlideError:
            self._retire(opened)
            raise
        else:
            if alone:
                self._offer(opened)
        finally:
            self._leave(opened)

    def rest(self) -> None:
        """Close the file for now, as soon as nobody reads; the next reader opens it again."""
        self._leave_parent()
        self._let_go()

    def close(self) -> None:
        """Refuse further readers, and close the file when the last one has left."""
        self._leave_parent()
        with self._lock:
            self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        with self._lock:
            opened, self._current = self._current, None
            read = opened is not None and opened.readers > 0
        if opened is not None and not read:  # else its last reader closes it
            opened.osr.close()

    @property
    def closed(self) -> bool:
        """True after `close`, even while a last read goes on."""
        return self._closed

    def _leave_parent(self) -> None:
        if os.getpid() != self._pid:
            # The locks, too, may have been held by a thread that does not exist here.
            _inherited.append(self._current)
            self._fresh_process()

    def _enter(self) -> _Opened:
        opened = self._join()
        if opened is not None:
            return opened
        with self._opening:  # whoever waited here finds the handle that another one opened
            opened = self._join()
            if opened is None:
                opened = self._open()
                self._offer(opened)
        return opened

    def _join(self) -> _Opened | None:
        with self._lock:
            self._refuse_closed()
            if self._current is not None:
                self._current.readers += 1
            return self._current

    def _open(self) -> _Opened:
        self._refuse_closed()
        opened = _Opened(self._open_file())
        with self._lock:
            self.openings += 1
        return opened

    def _offer(self, opened: _Opened) -> None:
        with self._lock:
            if self._current is None and not self._closed:
                self._current = opened

    def _retire(self, opened: _Opened) -> None:
        with self._lock:
            if self._current is opened:
                self._current = None

    def _leave(self, opened: _Opened) -> None:
        with self._lock:
            opened.readers -= 1
            unused = opened.readers == 0 and opened is not self._current
        if unused:
            opened.osr.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise SlideReadError("the slide is closed", self.path, "open it again")
