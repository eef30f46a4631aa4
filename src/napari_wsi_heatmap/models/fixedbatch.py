"""Batches for a network that takes only some sizes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class BatchRange:
    """Sizes of batches that a network takes: `least` to `most`; None: as many as there are."""

    least: int = 1
    most: int | None = None


def in_batches(network: Callable[[Any], Any], batch: torch.Tensor, sizes: BatchRange) -> Any:
    """Run a network over a batch of any size; short parts are filled up with zeros.

    Parameters
    ----------
    network : callable
        Returns a tensor, or a tuple, list or dict of tensors, with one row per window.
    batch : (N, ...) tensor
    sizes : BatchRange

    Returns
    -------
    As the network: N rows.
    """
    parts = torch.split(batch, sizes.most or max(1, len(batch)))
    results = [network(_filled(part, sizes.least)) for part in parts]
    return _joined(results, len(batch)) if len(results) > 1 else _cut(results[0], len(batch))


def _filled(part: torch.Tensor, least: int) -> torch.Tensor:
    short = least - len(part)
    return part if short <= 0 else torch.cat([part, part.new_zeros(short, *part.shape[1:])])


def _joined(results: list[Any], n: int) -> Any:
    first = results[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(results)[:n] if first.ndim else first
    if isinstance(first, dict):
        return {key: _joined([one[key] for one in results], n) for key in first}
    if isinstance(first, (tuple, list)):
        return tuple(_joined(list(ones), n) for ones in zip(*results, strict=True))
    return first


def _cut(result: Any, n: int) -> Any:
    return _joined([result], n)
