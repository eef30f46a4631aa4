"""What every slot and callback here needs: it must not let an exception out.

PyQt ends the process at an exception in a slot unless napari's own hook is installed, and an
exception in a callback of a layer list leaves that list half changed.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def guarded(slot: Callable[..., Any]) -> Callable[..., Any]:
    """Log what a slot raises instead of raising it."""

    @functools.wraps(slot)
    def safe(*args: Any) -> Any:
        try:
            return slot(*args)
        except Exception:
            logger.exception("%s failed", slot.__qualname__)

    return safe


def bare(proxy: Any) -> Any:
    """Return the napari object behind the proxy that plugins and the console get.

    Its identity is needed: through a proxy no two layers are the same object.
    """
    while type(proxy).__name__.endswith("PublicOnlyProxy"):
        proxy = proxy.__wrapped__
    return proxy
