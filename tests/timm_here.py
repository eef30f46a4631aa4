"""timm for tests, also beside a build of torch for CPUs, for which torchvision is not built."""

from __future__ import annotations

import sys
import warnings

import pytest

_KEPT = []
"""A library of operators lives as long as its object."""


def import_timm():
    """Import timm; skip where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pytest.importorskip("timm", exc_type=ImportError)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        _declare_operators()
        return pytest.importorskip("timm", exc_type=ImportError)


def _declare_operators():
    """Declare what torchvision's Python part looks for; no model here calls it."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]
