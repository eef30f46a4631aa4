"""A MIL model that was read from a checkpoint: features of a slide's patches -> `Bag`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_wsi_heatmap.errors import ModelError, ModelLoadError, ModelRunError, one_line
from napari_wsi_heatmap.models.memory import out_of_memory
from napari_wsi_heatmap.models.mil.bag import Bag, column, prediction_of, probabilities_of
from napari_wsi_heatmap.models.mil.checkpoint import read_checkpoint
from napari_wsi_heatmap.models.mil.claims import check_claims
from napari_wsi_heatmap.models.mil.features import checked
from napari_wsi_heatmap.models.mil.kinds import build
from napari_wsi_heatmap.models.mil.layout import Found, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_wsi_heatmap.models.mil.net import MilNet, Scored


class MilModel:
    """Scores bags; made by `napari_wsi_heatmap.load_mil`.

    Attributes
    ----------
    facts : Facts
        Type, layout, in_dim, n_classes, attention_dim, heads and gating, as the tensors say.
    notices : tuple of str
        What was stated otherwise, without doing harm.
    path, sha256
        Of the checkpoint.
    device : torch.device
    attention : str
        Definition of the score that is drawn, one of `attentions`.
    """

    def __init__(
        self, path: Path, *, device: str, attention: str | None, claims: Mapping[str, Any]
    ) -> None:
        checkpoint = read_checkpoint(path)
        found = Found(path, checkpoint.tensors)
        built = build(found)
        self.path, self.sha256, self.facts = path, checkpoint.sha256, built.facts
        self.notices = check_claims(claims, built.facts, path)
        self.device = chosen_device(device)
        self._net: MilNet = fill(built, found).to(self.device)
        self.attention = self._attention(attention)

    def __repr__(self) -> str:
        return f"<MilModel {self.facts}>"

    @property
    def attentions(self) -> tuple[str, ...]:
        """Definitions of the score that this type knows; the first is the default."""
        return self._net.attentions

    @property
    def patchwise(self) -> bool:
        """Whether a raw score depends on its patch alone, so that it can be drawn at once."""
        return self._net.patchwise

    def __call__(
        self, features: Any, *, branch: int | None = None, attention: str | None = None
    ) -> Bag:
        """Score the patches of one slide.

        Parameters
        ----------
        features : (N, D) array or tensor
            Of any float type; (1, N, D) is taken as well.
        branch : int, optional
            Class whose attention is drawn, where classes have their own (CLAM-MB, DS-MIL); the
            predicted one unless given.
        attention : str, optional
            One of `attentions`, instead of `self.attention`.

        Raises
        ------
        FeatureError
            If the features are of another length, not finite, or none.
        ModelRunError
            If memory runs out.
        """
        which = self.attention if attention is None else self._attention(attention)
        x = checked(features, self.facts.in_dim, self.device)
        return self._bag(self._run(x, lambda: self._net.score(x, which)), branch)

    def patch_scores(self, features: Any) -> NDArray[np.float32]:
        """Raw scores (n, K) of some patches of a bag, before the others are known.

        Raises
        ------
        ModelError
            If they depend on the other patches: see `patchwise`.
        """
        if not self.patchwise:
            what = f"a score of {self.facts.kind} depends on all patches of the slide"
            raise ModelError(what, do="score the whole bag")
        x = checked(features, self.facts.in_dim, self.device)
        return _array(self._run(x, lambda: self._net.patch_scores(x)))

    def _attention(self, name: str | None) -> str:
        if name is None:
            return self.attentions[0]
        if name not in self.attentions:
            what = f"{self.facts.kind} has no attention {name!r}"
            raise ModelLoadError(what, self.path, f"choose one of {', '.join(self.attentions)}")
        return name

    def _run(self, x: Tensor, compute: Callable[[], Any]) -> Any:
        # cuDNN's convolutions would otherwise compute with 10 bits, and not always the same ones.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        try:
            with torch.inference_mode(), exact:
                return compute()
        except (RuntimeError, MemoryError) as error:
            memory = out_of_memory(error)
            what = "memory ran out" if memory else f"the model failed: {one_line(error, 150)}"
            do = "use the CPU, a machine with more memory, or larger patches" if memory else None
            raise ModelRunError(f"{what} at {len(x)} patches", self.path, do) from error

    def _bag(self, scored: Scored, branch: int | None) -> Bag:
        logits = np.zeros(0, np.float32) if scored.logits is None else _array(scored.logits)
        prediction = prediction_of(logits)
        shown = (prediction or 0) if branch is None else branch
        return Bag(
            logits=logits,
            probabilities=probabilities_of(logits, exclusive=self._net.activation == "softmax"),
            scores=_array(scored.scores),
            weights=_array(scored.weights),
            prediction=prediction,
            branch=column(shown, scored.scores.shape[1]),
            drawn=scored.drawn,
            instance_logits=None if scored.instances is None else _array(scored.instances),
        )


def chosen_device(name: str) -> torch.device:
    """Find the device of a name such as ``auto``, ``cpu`` or ``cuda:0``.

    Raises
    ------
    ModelError
        If there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"no device {name!r} here", do="choose auto, cpu or cuda:0") from error
    return device


def _array(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()
