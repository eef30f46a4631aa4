"""What was asked for last, done in a thread; what was asked before that is dropped."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap._napari.off_gui import off_gui
from napari_wsi_heatmap.errors import HeatmapError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = tuple[int, Callable[[], Any], Callable[[Any], None], Callable[[str], None]]

logger = logging.getLogger(__name__)


class Latest:
    """Does one thing at a time off the GUI thread: of several that wait, only the last.

    So ten clicks over a slide that is slow to read cost two reads. All methods belong to the
    GUI thread, except `wants`.

    Parameters
    ----------
    failing : str
        Begin of the line that the log gets where something unexpected is raised.
    """

    def __init__(self, failing: str) -> None:
        self._failing = failing
        self._asked, self._busy = 0, False
        self._next: Ask | None = None

    @property
    def number(self) -> int:
        """Of what was asked for last."""
        return self._asked

    def wants(self, number: int) -> bool:
        """Whether nothing was asked for since; a long work looks, and ends early."""
        return number == self._asked

    def ask(
        self,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        refused: Callable[[str], None],
    ) -> None:
        """Call ``work()`` in a thread, then ``then(result)``, or ``refused(line)`` if it raises.

        Neither is called if something else is asked for meanwhile.
        """
        self._asked += 1
        self._next = (self._asked, work, then, refused)
        if not self._busy:
            self._begin()

    def drop(self) -> None:
        """Want nothing any more."""
        self._asked += 1
        self._next = None

    def _begin(self) -> None:
        if self._next is None:
            return
        asked, self._next, self._busy = self._next, None, True
        off_gui(lambda: self._outcome(asked[1]), lambda o: self._done(asked, o), self._failing)

    def _outcome(self, work: Callable[[], Any]) -> tuple[Any, str]:
        """What it gave, and an empty line; or one that says why it gave nothing."""
        try:
            return work(), ""
        except HeatmapError as error:
            return None, str(error)
        except Exception as error:
            logger.exception("%s", self._failing)
            return None, one_line(f"unexpected {type(error).__name__}: {error}", 200)

    def _done(self, asked: Ask, outcome: tuple[Any, str]) -> None:
        self._busy = False
        number, _, then, refused = asked
        result, line = outcome
        try:
            if self.wants(number):
                refused(line) if line else then(result)
        finally:
            self._begin()
