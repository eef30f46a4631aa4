"""Whether the death of this process would harm nobody: then slides are opened without a child.

A child process opens a slide first wherever a crash would take a user's session with it (see
`guard`). A worker of a cohort that dies is started again, and what it had done is on disk.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_expendable: ContextVar[bool] = ContextVar("expendable", default=False)


@contextmanager
def expendable_process(really: bool = True) -> Iterator[None]:
    """Open slides without asking a child first, in this thread and as long as it lasts."""
    before = _expendable.set(really)
    try:
        yield
    finally:
        _expendable.reset(before)


def is_expendable() -> bool:
    """Whether this thread has said that its process may die."""
    return _expendable.get()
