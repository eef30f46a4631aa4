"""A cohort that the dock has started: a thread follows it, the GUI looks when it likes."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import HeatmapError, one_line
from napari_wsi_heatmap.runfolder import ENDING, RECORD

if TYPE_CHECKING:
    from napari_wsi_heatmap.cohort.campaign import Campaign
    from napari_wsi_heatmap.cohort.cluster import Crew
    from napari_wsi_heatmap.cohort.facts import SlideFacts

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Seconds between two looks at how far the slides are that are being worked on."""
WAITS, STARTING, STOPPING, STOPPED = "waits", "starting the workers…", "stopping…", "stopped"


class StoppedError(HeatmapError):
    """Somebody does not want the cohort any more."""


class CohortJob:
    """A cohort in a thread of its own; it goes on when the dock is closed.

    Parameters
    ----------
    slides, model, out
        As for `run_cohort`.
    **options
        Of `run_cohort`.

    Attributes
    ----------
    names : list of str
        Slides, in the order of the queue.
    facts : dict
        Name of a slide -> `SlideFacts`, of those that are finished.
    """

    def __init__(self, slides: Any, model: Any, out: Path, **options: Any) -> None:
        from napari_wsi_heatmap.cohort.slidelist import list_slides

        self._items = list_slides(slides)
        self._model, self._out, self._options = model, Path(out), options
        self.names = [item.name for item in self._items]
        self.facts: dict[str, SlideFacts] = {}
        self.crew, self.error = "", ""
        self._partly: dict[str, str] = {}
        self._queue: Campaign | None = None
        self._stop, self._ended = threading.Event(), threading.Event()
        for work in (self._work, self._look):
            threading.Thread(target=work, name="cohort", daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether it has come to its end, in whatever way."""
        return self._ended.is_set()

    @property
    def line(self) -> str:
        """How it stands, in a line."""
        if self.error:
            return self.error
        wrong = sum(not facts.finished for facts in self.facts.values())
        done = f"{len(self.facts)} of {len(self.names)} slides"
        done += f", {wrong} failed" if wrong else ""
        if self._stop.is_set():
            return f"{done}; {STOPPED if self.over else STOPPING}"
        return done if self.crew else STARTING

    def state(self, name: str) -> str:
        """How a slide stands, in a word or in why it failed."""
        facts = self.facts.get(name)
        if facts is None:
            return self._partly.get(name, WAITS)
        return facts.error or facts.status

    def stop(self) -> None:
        """End it, soon; what is done is kept, and is not done again."""
        self._stop.set()
        if self._queue is not None:
            self._queue.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end; tells whether it came."""
        return self._ended.wait(seconds)

    def _work(self) -> None:
        from napari_wsi_heatmap.cohort.running import run_cohort

        try:
            outcomes = run_cohort(
                self._items,
                self._model,
                out=self._out,
                on_crew=self._on_crew,
                on_change=self._on_change,
                **self._options,
            )
            for facts in outcomes:
                self.facts[facts.slide] = facts
        except StoppedError:
            pass
        except HeatmapError as error:
            self.error = str(error)
        except Exception as error:
            logger.exception("the cohort failed")
            self.error = one_line(f"unexpected {type(error).__name__}: {error}", 300)
        finally:
            self._ended.set()

    def _on_crew(self, crew: Crew) -> None:
        self.crew = crew.line
        self._refuse_unwanted()

    def _on_change(self, queue: Campaign) -> None:
        self._queue = queue
        self._refuse_unwanted()

    def _refuse_unwanted(self) -> None:
        if self._stop.is_set():
            raise StoppedError("the cohort was stopped")

    def _look(self) -> None:
        """Read how far slides are: what they write is there to be read while it grows."""
        while not self._ended.wait(LOOK_S):
            for name in self.names:
                if name not in self.facts:
                    # A record that is being replaced, or of a slide that nobody has begun.
                    with suppress(OSError, ValueError, KeyError, ZeroDivisionError):
                        self._partly[name] = _share(self._out / f"{name}{ENDING}" / RECORD)


def _share(path: Path) -> str:
    counts = json.loads(path.read_bytes())["counts"]
    wanted = counts["pending"] + counts["done"] + counts["failed"]
    return f"{(counts['done'] + counts['failed']) / wanted:.0%}"
