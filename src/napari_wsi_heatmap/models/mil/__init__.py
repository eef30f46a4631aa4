"""MIL models: attention over the patches of a slide, read strictly from any checkpoint.

One file is one architecture, written from its paper: ``abmil``, ``clam_sb``, ``clam_mb``,
``transmil``, ``dsmil``. Importing this costs no import of torch.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from napari_wsi_heatmap.models.mil.model import MilModel

__all__ = ["load_mil"]

_log = logging.getLogger(__name__)


def load_mil(
    path: str | os.PathLike[str],
    *,
    model_type: str | None = None,
    in_dim: int | None = None,
    n_classes: int | None = None,
    attention_dim: int | None = None,
    heads: int | None = None,
    gated: bool | None = None,
    dropout: float | None = None,
    attention: str | None = None,
    device: str = "auto",
) -> MilModel:
    """Load a trained MIL model; what it is, is read from its tensors.

    Parameters
    ----------
    path : path
        ABMIL (MIL-Lab, AMLab, TRIDENT), CLAM-SB (CLAM, MIL-Lab), CLAM-MB (CLAM), TransMIL or
        DS-MIL (their authors, MIL-Lab): a state dict of `torch.save`, bare or within what a
        training script saved, a Lightning checkpoint, or safetensors. Nothing in it is run.
    model_type : {"abmil", "clam_sb", "clam_mb", "transmil", "dsmil"}, optional
        This and the following are only held against what the tensors say.
    in_dim, n_classes, heads : int, optional
    attention_dim : int, optional
        Another than in the tensors is a notice, no error: MIL-Lab ignores it for some types.
    gated : bool, optional
    dropout : float, optional
        Without effect: it belongs to training.
    attention : str, optional
        Definition of a patch's score, where there are several. TransMIL: "dot" (default, that of
        MIL-Lab), "nystrom" or "nystrom-1"; DS-MIL: "attention" (default) or "instances".
    device : str
        "auto", "cpu", "cuda:0", …

    Returns
    -------
    MilModel
        ``bag = model(features)``.

    Raises
    ------
    ModelLoadError
        If the file is no such checkpoint, a tensor is missing, not expected or of another shape,
        or what is stated contradicts it.

    Examples
    --------
    >>> mil = load_mil("s_0_checkpoint.pt")
    >>> bag = mil(features)
    >>> bag.prediction, bag.probabilities, bag.patch_score
    """
    from napari_wsi_heatmap.models.mil.model import MilModel

    claims = {
        "model_type": model_type, "in_dim": in_dim, "n_classes": n_classes,
        "attention_dim": attention_dim, "heads": heads, "gated": gated,
    }  # fmt: skip
    model = MilModel(Path(path), device=device, attention=attention, claims=claims)
    for notice in model.notices:
        _log.warning("%s: %s", path, notice)
    return model
