"""The one thread that saves a growing map, a few times a minute and at the end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_wsi_heatmap.growing import GrowingMap, Snapshot
    from napari_wsi_heatmap.store import HeatmapStore

INTERVAL_S = 2.0
"""What a crash may cost; a save writes whole chunks, so more often would write more in all."""


class StoreWriter:
    """Saves what changed, every `interval` seconds, from a thread of its own.

    Parameters
    ----------
    store : HeatmapStore
        Locked by this process.
    growing : GrowingMap
    note : callable
        Called by each save that has something to save, after the values and before the states:
        what says why a window failed must be there when its state says that it did.
    interval : float
        Seconds.
    """

    def __init__(
        self,
        store: HeatmapStore,
        growing: GrowingMap,
        note: Callable[[], None],
        interval: float = INTERVAL_S,
    ) -> None:
        self._store, self._growing, self._note = store, growing, note
        self._interval = interval
        self._stop = threading.Event()
        self._saving = threading.Lock()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="wsi-writer", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """If the thread could not save, try again, and raise what still goes wrong.

        What went wrong a while ago says nothing of now: room may have been made since.

        Raises
        ------
        StoreFullError
            If the disk is full or gone; what was not saved is kept for the next try.
        """
        if self._error is not None:
            self.save()
            self._error = None

    def save(self) -> None:
        """Save now what changed: features and values first, then the states.

        Raises
        ------
        StoreFullError
            If the disk is full or gone; nothing is lost, the next save tries again.
        """
        with self._saving:
            snapshot = self._growing.snapshot()
            try:
                self._write(snapshot)
            except BaseException:
                self._growing.give_back(snapshot)
                raise
            self._growing.let_go(snapshot)

    def _write(self, snapshot: Snapshot) -> None:
        for block in self._growing.feature_blocks(snapshot):
            self._store.write_features(block)
        for box in snapshot.boxes:
            self._store.write_values(box, self._growing.values[:, *box].copy())
        if snapshot.states:
            self._note()
        for box, states in snapshot.states:
            self._store.write_state(box, states)
        self._store.refuse_gone()  # written into a folder made anew where a drive was, it is lost

    def close(self) -> None:
        """Stop the thread. What changed since its last save is not saved: call `save`."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(self._interval):
            if self._error is None:
                self.try_to_save()

    def try_to_save(self) -> None:
        """Save now; what goes wrong is for `check` to say, where the run goes on."""
        try:
            self.save()
        except Exception as error:  # noqa: BLE001 - `check` tries again and raises
            self._error = error
