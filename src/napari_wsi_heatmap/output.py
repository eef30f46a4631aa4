"""What a run leaves behind: its record, and the store if it has one, through every kind of end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import StoreFullError
from napari_wsi_heatmap.plan import refuse_mismatch
from napari_wsi_heatmap.record import (
    FAILED,
    FAILURES_LISTED,
    PAUSED,
    RUNNING,
    new_record,
    now,
    outcome,
)
from napari_wsi_heatmap.runfolder import is_store, refuse_foreign
from napari_wsi_heatmap.states import FAILED as WINDOW_FAILED
from napari_wsi_heatmap.states import STATE_BITS, count_states, state_of
from napari_wsi_heatmap.store import HeatmapStore
from napari_wsi_heatmap.writer import StoreWriter

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.growing import GrowingMap
    from napari_wsi_heatmap.plan import Plan


class RunOutput:
    """Record and store of one run.

    Parameters
    ----------
    plan : Plan
    growing : GrowingMap
        Gets what an earlier run of the same plan has saved.
    path : Path or None
        The store; None: the record is kept, nothing is written.
    model_spec : str or None
        See `new_record`.
    again : bool
        Make windows that failed pending again.

    Raises
    ------
    StoreExistsError
        If the path holds something else.
    PlanMismatchError
        If it holds a run of another plan.
    """

    def __init__(
        self,
        plan: Plan,
        growing: GrowingMap,
        path: Path | None,
        model_spec: str | None = None,
        *,
        again: bool = False,
    ) -> None:
        self.path, self.plan, self.growing = path, plan, growing
        self.record = new_record(plan, model_spec)
        self.failures: dict[int, str] = {}
        self._store: HeatmapStore | None = None
        self._writer: StoreWriter | None = None
        if path is not None:
            refuse_foreign(path)
            if is_store(path):
                self._continue(HeatmapStore.open(path), again)

    def _continue(self, store: HeatmapStore, again: bool) -> None:
        earlier = store.read_record()
        refuse_mismatch(self.record["plan"], earlier.get("plan", {}), store.path)
        self._store = store
        self.failures = {int(i): why for i, why in earlier.get("failed", [])}
        self.record |= {"begun": earlier.get("begun"), "seconds": earlier.get("seconds", {})}
        state = store.state
        if again:
            state[state_of(state) == WINDOW_FAILED] &= ~np.uint8(STATE_BITS)
            self.failures.clear()
        self.growing.restore(store.values, state)

    def open(self) -> None:
        """Become the one writer of the store, and begin to save now and then."""
        if self.path is None:
            return
        if self._store is None:
            frame, growing = self.plan.frame, self.growing
            self._store = HeatmapStore.create(
                self.path, frame, growing.state, growing.chunk, self.record
            )
        else:
            self._store.lock()
        self.record |= {"status": RUNNING, "reason": "", "process": os.getpid()}
        self._store.write_record(self.record)
        self._writer = StoreWriter(self._store, self.growing)

    def check(self) -> None:
        """Raise StoreFullError if saving has failed since the last look."""
        if self._writer is not None:
            self._writer.check()

    def paused(self, reason: str) -> None:
        """Say in the record that the run waits, if the disk lets us."""
        try:
            self._note(PAUSED, reason)
        except StoreFullError:
            return

    def close(self, error: BaseException | None, stopped: str) -> None:
        """Save what is not saved yet, say how the run ended, and let others write.

        Parameters
        ----------
        error : BaseException or None
            What ended the run, if it did not end by itself.
        stopped : str
            Why it stopped before its end, if it did.

        Raises
        ------
        StoreFullError
            If the rest cannot be saved and nothing else went wrong before.
        """
        try:
            self._save_rest()
        except StoreFullError as full:
            if error is None:
                self._end(full, stopped)
                raise
        self._end(error, stopped)

    def _save_rest(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer.save()

    def _end(self, error: BaseException | None, stopped: str) -> None:
        status, reason = outcome(self.growing.saved_state, error, stopped)
        try:
            if self._store is not None and status not in (FAILED, PAUSED):
                self._store.finish(self.plan.frame, self.plan.model.name)
            self._note(status, reason)
        except StoreFullError:
            if error is None:
                raise
        finally:
            if self._store is not None:
                self._store.release()

    def _note(self, status: str, reason: str) -> None:
        self.record |= {
            "status": status,
            "reason": reason,
            "counts": count_states(self.growing.saved_state),
            "failed": sorted(self.failures.items())[:FAILURES_LISTED],
            "ended": now(),
        }
        if self._store is not None:
            self._store.write_record(self.record)
