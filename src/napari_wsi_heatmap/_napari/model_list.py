"""Models that the dock offers: the builtin ones, and those handed over in Python."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from psygnal import Signal

from napari_wsi_heatmap.models import BUILTIN, load_model


@dataclass(frozen=True)
class ModelFacts:
    """What a model wants to see."""

    window: tuple[int, int]
    mpp: float | None


class ModelList:
    """Names of models, and what `load_model` makes each of.

    A registered model is kept. One that was only run is offered as long as something else, such
    as its heatmap's layer, keeps it.
    """

    changed = Signal()

    def __init__(self) -> None:
        self._registered: dict[str, Any] = {}
        self._run: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._facts: dict[str, ModelFacts] = {}

    def register(self, name: str, model: Any) -> None:
        """Offer a model under a name of its own."""
        self._registered[name] = model
        self._facts.pop(name, None)
        self.changed.emit()

    def unregister(self, name: str) -> None:
        """Let go of a registered model."""
        self._registered.pop(name, None)
        self.changed.emit()

    @property
    def names(self) -> list[str]:
        """Names, builtin models first."""
        return list(dict.fromkeys([*BUILTIN, *self._registered, *self._run]))

    def spec(self, name: str) -> Any:
        """What `load_model` takes for a name."""
        handed_over = self._registered.get(name, self._run.get(name))
        return name if handed_over is None else handed_over

    def name(self, model: Any) -> str:
        """Short name of a model; one that was handed over in Python is offered from now on."""
        if isinstance(model, str):
            return model
        known = next((n for n, other in self._registered.items() if other is model), None)
        return known or self._remember(model)

    def _remember(self, model: Any) -> str:
        name = _readable(model)
        if name in BUILTIN:
            return name
        try:
            self._run[name] = model
        except TypeError:  # nothing can refer weakly to it
            return name
        self.changed.emit()
        return name

    def describe(self, name: str) -> str:
        """One line about a model."""
        if name in BUILTIN:
            return BUILTIN[name]
        source = getattr(self.spec(name), "source", None)  # of a model that came from a file
        if source is not None:
            return f"file: {source.path}"
        return f"handed over in Python: {_readable(self.spec(name))}"

    def facts(self, name: str) -> ModelFacts | None:
        """What a model wants to see, None until `learn` has found out."""
        return self._facts.get(name)

    def learn(self, name: str) -> ModelFacts:
        """Load a model and note what it wants to see. Imports torch."""
        if name not in self._facts:
            model = load_model(self.spec(name))
            self._facts[name] = ModelFacts(model.window, model.mpp)
        return self._facts[name]


MODELS = ModelList()


def _readable(model: Any) -> str:
    """As the model will be called, without importing torch for it."""
    name = getattr(model, "name", None) or getattr(model, "__name__", None)
    if name == "<lambda>":
        return "model"
    return name if isinstance(name, str) else type(model).__name__
