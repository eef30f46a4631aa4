"""The end of a run: everything that it has opened is closed, once, whoever lets go of it."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

from napari_wsi_heatmap import at_exit, strays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_wsi_heatmap.control import RunControl
    from napari_wsi_heatmap.loader import Loader
    from napari_wsi_heatmap.share import Share
    from napari_wsi_heatmap.workers import Workers

PATIENCE_S: Final = 0.5
"""Seconds that the end of a run waits for the batches at hand."""
PATIENCE_AT_EXIT_S: Final = 0.1
"""The same where Python ends, and nobody will have what is at hand."""
OUR_THREADS: Final = "wsi-"
"""How the names of threads of any run begin."""


class Ending:
    """Closes a run when its generator ends, or when Python does and nobody has ended it.

    Parameters
    ----------
    shares : sequence of Share
    loader : Loader
    control : RunControl
    let_go : callable
        Lets go of what else the run has, such as its slide.

    Attributes
    ----------
    workers : Workers or None
        Set once there are any.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        loader: Loader,
        control: RunControl,
        let_go: Callable[[], None],
    ) -> None:
        self._shares, self._loader, self._control = shares, loader, control
        self._let_go, self._pid, self._over = let_go, os.getpid(), False
        self.workers: Workers | None = None

    def begin(self) -> None:
        """Be ready for Python's end, before anything is opened."""
        self._pid = os.getpid()
        at_exit.remember(self._with_python)

    def close(self, error: BaseException | None) -> None:
        """Close all, and save what is not saved.

        Parameters
        ----------
        error : BaseException, optional
            What ended the run, if it did not end by itself.
        """
        # A fork has none of the threads: all of it is the parent's. And when Python ends, threads
        # may have ended with a lock in their hands.
        if self._over or os.getpid() != self._pid:
            return
        # A generator that nobody holds is closed by whichever thread happens to collect it: one
        # of ours would wait for itself.
        if threading.current_thread().name.startswith(OUR_THREADS):
            self._start(partial(self._close, error), daemon=False)
        else:
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        stopped = "cancelled" if self._control.cancelled.is_set() else "interrupted"
        with ExitStack() as each:  # the last first, whatever another one raises
            each.callback(self._let_go)
            each.callback(at_exit.forget, self._with_python)
            for share in self._shares:
                each.callback(share.output.close, error, stopped)
            each.callback(self._restore_models)

    def _stop(self, patience_s: float = PATIENCE_S) -> bool:
        """Stop threads; whether no model is at work any more."""
        self._loader.close()
        return self.workers is None or self.workers.close(patience_s)

    def _restore_models(self) -> None:
        """Give the models back, but none that is at work: it would see the change."""
        ended = False
        try:
            ended = self._stop()
        finally:  # even where somebody is too impatient for it
            if ended:
                self._restore()
            else:
                self._start(self._restore_later, daemon=True)

    def _start(self, what: Callable[[], None], *, daemon: bool) -> None:
        thread = threading.Thread(target=what, name="closing", daemon=daemon)
        strays.watch(thread)
        thread.start()

    def _restore_later(self) -> None:
        assert self.workers is not None
        self.workers.join()
        self._restore()

    def _restore(self) -> None:
        with ExitStack() as each:
            for share in self._shares:
                each.callback(share.plan.model.restore)

    def _with_python(self) -> None:
        self._over = True
        self._control.cancel()
        if not self._stop(PATIENCE_AT_EXIT_S) and self.workers is not None:
            self.workers.interrupt()
        with ExitStack() as each:
            for share in reversed(self._shares):
                each.callback(share.output.close, None, "the program ended")
