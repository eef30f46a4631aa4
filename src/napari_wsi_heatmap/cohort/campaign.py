"""The queue of a cohort: tasks go out, facts come back, lost workers are survived.

The scheduler gives the tasks of a worker that dies to others. A slide that has taken several
workers with it is given up with one line; one whose output somebody else writes at the moment (a
task of an earlier session that a cluster still works on) is tried again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.cohort import plugin
from napari_wsi_heatmap.cohort.facts import SlideFacts, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_wsi_heatmap.cohort.bands import Banding
    from napari_wsi_heatmap.cohort.slidelist import CohortSlide

LOCK_PAUSE_S = 2.0
LOCKED_S = 600.0
"""Seconds for which an output that somebody else writes is waited for."""
LOST = (
    "{deaths} workers died over it - see the log of the workers; fewer workers, or a smaller "
    "setting memory, may help"
)


@dataclass
class Divided:
    """A slide in bands, while they are worked on."""

    item: CohortSlide
    banding: Banding
    left: set[int]
    facts: list[SlideFacts] = field(default_factory=list)


@dataclass
class Campaign:
    """All tasks of a cohort.

    Parameters
    ----------
    client : distributed.Client
    key : str
        Of the request that the workers hold.
    items : sequence of CohortSlide
    parts : int
        Bands of a slide; 1: slides are not divided.
    resources : dict, optional
        What a task needs.
    task : callable
        ``task(key, item)`` in the worker, for a slide that is not divided.
    on_change : callable, optional
        Called without arguments at the beginning, and when a task has come to its end.
    """

    client: Any
    key: str
    items: Sequence[CohortSlide]
    parts: int = 1
    resources: dict[str, float] | None = None
    task: Callable[..., Any] = plugin.slide_task
    on_change: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self._running: dict[Any, tuple[Callable[[Any], SlideFacts | None], CohortSlide]] = {}
        self._locked: dict[str, float] = {}
        self._waiting: list[CohortSlide] = []
        self._new: list[Any] = []
        self.tasks_done = 0
        self.stopped = False

    @property
    def tasks(self) -> int:
        """Number of tasks that are known by now."""
        return self.tasks_done + len(self._running) + len(self._waiting)

    def stop(self) -> None:
        """End the iteration of the outcomes; may be called by any thread, and waits for none."""
        self.stopped = True
        self.client.loop.add_callback(
            self.client.cancel, list(self._running), asynchronous=True, force=True
        )

    def outcomes(self) -> Iterator[SlideFacts]:
        """Facts of one slide after the other, as they are finished."""
        from distributed import as_completed

        coming = as_completed([], loop=self.client.loop, raise_errors=False)
        self._waiting = list(self.items)
        self._changed()
        while self._waiting and not self.stopped:
            waiting, self._waiting = self._waiting, []
            for item in waiting:
                self._begin(item)
            coming.update(self._taken())
            for future in coming:
                if self.stopped:
                    return
                facts = self._arrived(future)
                coming.update(self._taken())
                if facts is not None:
                    yield facts
            if self._waiting:  # for outputs that somebody else writes at the moment
                time.sleep(LOCK_PAUSE_S)

    def _taken(self) -> list[Any]:
        """Futures of the tasks that were submitted since the last call."""
        new, self._new = self._new, []
        return new

    def _begin(self, item: CohortSlide) -> None:
        if self.parts > 1:
            self._submit(self._banding, item, plugin.banding_task, self.parts)
        else:
            self._submit(self._slide, item, self.task)

    def _submit(
        self,
        then: Callable[[Any], SlideFacts | None],
        item: CohortSlide,
        task: Callable[..., Any],
        *arguments: Any,
    ) -> None:
        future = self.client.submit(
            task, self.key, item, *arguments, pure=False, resources=self.resources
        )
        self._running[future] = then, item
        self._new.append(future)

    def _arrived(self, future: Any) -> SlideFacts | None:
        then, item = self._running.pop(future)
        self.tasks_done += 1
        try:
            answer = future.result()
        except Exception as error:  # noqa: BLE001 - of dask: a task that lost all its workers
            answer = failed(item.name, _lost(error), path=item.path)
        facts = then(answer)
        self._changed()
        return facts

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _slide(self, facts: SlideFacts) -> SlideFacts | None:
        """Hand the facts on, unless somebody else writes the slide's output at the moment."""
        now = time.monotonic()
        if facts.locked and now - self._locked.setdefault(facts.slide, now) < LOCKED_S:
            self._waiting += [item for item in self.items if item.name == facts.slide]
            return None
        return facts

    def _banding(self, answer: Banding | SlideFacts) -> SlideFacts | None:
        if isinstance(answer, SlideFacts):
            return self._slide(answer)
        name = _name_of(answer)
        item = next(item for item in self.items if item.name == name)
        divided = Divided(item, answer, set(range(len(answer.cuts))))
        for number in sorted(divided.left):
            self._submit(self._band(divided, number), item, plugin.band_task, answer, number)
        return None

    def _band(self, divided: Divided, number: int) -> Callable[[Any], SlideFacts | None]:
        def then(facts: SlideFacts) -> SlideFacts | None:
            divided.left.discard(number)
            divided.facts.append(facts)
            return None if divided.left else self._merge(divided)

        return then

    def _merge(self, divided: Divided) -> SlideFacts | None:
        """Begin to merge the bands of a slide; if one has failed, the slide has."""
        wrong = [facts for facts in divided.facts if not facts.finished]
        if wrong:
            return self._slide(replace(wrong[0], path=divided.item.path))
        self._submit(self._merged(divided), divided.item, plugin.merge_task, divided.banding)
        return None

    def _merged(self, divided: Divided) -> Callable[[Any], SlideFacts | None]:
        def then(facts: SlideFacts) -> SlideFacts | None:
            spent = sum(band.seconds for band in divided.facts)
            return self._slide(replace(facts, seconds=facts.seconds + spent))

        return then


def _name_of(banding: Banding) -> str:
    from pathlib import Path

    return Path(banding.folder).name.removesuffix(".bands")


def _lost(error: Exception) -> Any:
    """A line for what dask raises where a task has lost its workers."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return LOST.format(deaths=error.allowed_failures + 1)
    return error
