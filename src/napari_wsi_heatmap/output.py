"""What a run leaves behind: its record, and the store if it has one, through every kind of end."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from napari_wsi_heatmap.errors import StoreFullError, StoreLockedError
from napari_wsi_heatmap.features import keep_features
from napari_wsi_heatmap.growing import boxes_of
from napari_wsi_heatmap.mismatch import refuse_mismatch
from napari_wsi_heatmap.record import (
    FAILED,
    PAUSED,
    RUNNING,
    account,
    list_failed,
    new_record,
    note_halving,
    now,
    outcome,
)
from napari_wsi_heatmap.runfolder import is_store, reading, refuse_foreign
from napari_wsi_heatmap.states import FAILED as WINDOW_FAILED
from napari_wsi_heatmap.states import STATE_BITS, state_of
from napari_wsi_heatmap.store import STATE_CHUNK, HeatmapStore
from napari_wsi_heatmap.timings import spent_before
from napari_wsi_heatmap.writer import StoreWriter

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from napari_wsi_heatmap.growing import GrowingMap, States
    from napari_wsi_heatmap.models.again import Spec
    from napari_wsi_heatmap.plan import Plan
    from napari_wsi_heatmap.predict import Halving
    from napari_wsi_heatmap.timings import Timings


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

    Attributes
    ----------
    timings : Timings or None
        Of the session, for the record; those of earlier sessions are added.

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
        model_spec: Spec = None,
        *,
        again: bool = False,
    ) -> None:
        self.path, self.plan, self.growing = path, plan, growing
        self.record = new_record(plan, model_spec)
        self.timings: Timings | None = None
        self._earlier: dict[str, Any] = {}
        self.failures: dict[int, str] = {}
        self._found: tuple[HeatmapStore, States] | None = None
        self._store: HeatmapStore | None = None  # once it is ours to write
        self._writer: StoreWriter | None = None
        self._pid, self._closed, self._closing = os.getpid(), False, threading.Lock()
        self._noting, self._finished = threading.Lock(), False
        keep_features(growing, plan.dry.features, stored=path is not None)
        if path is not None:
            refuse_foreign(path)
            if is_store(path):
                self._continue(HeatmapStore.open(path), again)

    def _continue(self, store: HeatmapStore, again: bool) -> None:
        earlier = store.read_record()
        with reading(store.path, "the record of the run"):
            refuse_mismatch(self.record["plan"], dict(earlier["plan"]), store.path)
            self.failures = {int(i): str(why) for i, why in earlier["failed"]}
            self._earlier = spent_before(earlier)
            self.record |= {"begun": earlier["begun"], **self._earlier}
            self.record["halved"] = list(earlier.get("halved", ()))
            self.record |= {key: earlier[key] for key in ("scored_by",) if key in earlier}
        store.refuse_misfit(self.plan.frame, self.plan.dry.features)
        state = store.state_within(self.plan.selection.state)
        self._found = store, state.copy()
        if again:
            state[state_of(state) == WINDOW_FAILED] &= ~np.uint8(STATE_BITS)
        lost = self.growing.restore(store.values, state, store.features)
        if lost:
            self.record["notices"].append(f"{lost} windows were saved damaged: computed again")

    def open(self) -> None:
        """Become the one writer of the store, and begin to save now and then.

        Raises
        ------
        StoreLockedError
            If another run writes there, or has done so since this one was planned.
        """
        with self._closing:  # Python may end, and close this, while another thread is here
            if self.path is not None and not self._closed:
                self._begin(self.path)

    def _begin(self, path: Path) -> None:
        self._pid = os.getpid()
        if self._found is None:
            frame, growing = self.plan.frame, self.growing
            self._store = HeatmapStore.create(
                path, frame, growing.state, growing.chunk, self.record, growing.unsaved
            )
        else:
            self._store = self._lock(*self._found)
        if self.timings is not None:
            self._store.timings = self.timings
        self.record["process"] = self._pid
        self._note(RUNNING, "")
        self._writer = StoreWriter(self._store, self.growing, self._note_saved)

    def _lock(self, store: HeatmapStore, found: States) -> HeatmapStore:
        store.lock()
        try:
            if not np.array_equal(store.state_within(self.plan.selection.state), found):
                raise StoreLockedError(
                    "another run has written here since this one was planned",
                    store.path,
                    "start again: what is there is continued",
                )
            self._want_again(store, found)
        except BaseException:
            store.release()
            raise
        return store

    def _want_again(self, store: HeatmapStore, found: States) -> None:
        """Make failed windows that are tried again pending on disk too, so that a kill keeps it."""
        wanted = (state_of(found) == WINDOW_FAILED) & self.growing.pending
        states = np.where(wanted, found & ~np.uint8(STATE_BITS), found)
        for box in boxes_of(found.shape, STATE_CHUNK):
            if wanted[box].any():
                store.write_state(box, states[box])

    def check(self) -> None:
        """Raise StoreFullError if saving has failed since the last look, and still does."""
        if self._writer is not None:
            self._writer.check()

    def save(self) -> None:
        """Save now what is not saved yet, coarser levels too if all windows are settled.

        Raises
        ------
        StoreFullError
            If that fails; it can be tried again.
        """
        if self._writer is not None:
            self._writer.save()
            self._finish(*outcome(self.growing.saved_state, None, ""))

    def halved(self, window: int, halving: Halving) -> None:
        """Say in the record that memory ran out, and from which window on batches are smaller."""
        note_halving(self.record, window, halving)

    def paused(self, reason: str) -> None:
        """Say in the record that the run waits, if the disk lets us."""
        with suppress(StoreFullError):
            self._note(PAUSED, reason)

    def resumed(self) -> None:
        """Say in the record that it goes on."""
        with suppress(StoreFullError):
            self._note(RUNNING, "")

    def close(self, error: BaseException | None, stopped: str) -> None:
        """Save what is not saved yet, say how the run ended, and let others write.

        Closing again does nothing.

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
        with self._closing:
            # A fork has the lock, but none of the threads: the store is the parent's.
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
        try:
            full = self._save_rest()
            self._end(error or full, stopped)
        finally:
            if self._store is not None:
                self._store.release()
        if error is None and full is not None:
            raise full

    def _save_rest(self) -> StoreFullError | None:
        if self._writer is not None:
            self._writer.close()
            try:
                self._writer.save()
            except StoreFullError as full:
                return full
        return None

    def _end(self, error: BaseException | None, stopped: str) -> None:
        status, reason = outcome(self.growing.saved_state, error, stopped)
        try:
            self._finish(status, reason)
            self._note(status, reason)
        except StoreFullError:
            # What is finished is on disk, but for the seconds of this session.
            if error is None and not self._finished:
                raise

    def _finish(self, status: str, reason: str) -> None:
        """Add what only a map has that is whole, once."""
        if self._store is None or self._finished or status in (FAILED, PAUSED):
            return
        self._store.finish(self.plan.frame, self.plan.model.name)
        self._note(status, reason)
        self._finished = True

    def _note_saved(self) -> None:
        """Bring counts and failures in the record up to date."""
        self._note(self.record["status"], self.record["reason"])

    def _note(self, status: str, reason: str) -> None:
        with self._noting:  # the writer's thread notes as well
            state = self.growing.saved_state
            if self.timings is not None:
                self.record |= self.timings.added_to(self._earlier)
            self.record |= {
                "status": status,
                "reason": reason,
                "counts": account(state),
                "failed": list_failed(state, self.failures.copy()),
                "ended": now(),
            }
            if self._store is not None:
                self._store.write_record(self.record)
