"""Right of way: what is on view is read before what may come into view."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Traffic:
    """Counts reads of what is on view, so that others can let them pass."""

    def __init__(self) -> None:
        self._reads = 0
        self._clear = threading.Condition()

    @contextmanager
    def visible_read(self) -> Iterator[None]:
        """Have the right of way inside the block; several threads may."""
        with self._clear:
            self._reads += 1
        try:
            yield
        finally:
            with self._clear:
                self._reads -= 1
                if self._reads == 0:
                    self._clear.notify_all()

    def wait_clear(self, timeout: float) -> bool:
        """Wait until nobody reads what is on view; False if somebody still does."""
        with self._clear:
            return self._clear.wait_for(lambda: self._reads == 0, timeout)
