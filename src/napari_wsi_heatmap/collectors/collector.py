"""What people write: a function, a class or a model that makes values of batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import ModelOutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_wsi_heatmap.streams.batches import PatchBatch

    Values = NDArray[np.float32]


@dataclass(frozen=True)
class CollectedPiece:
    """What came of some windows of one slide."""

    slide: Any
    """What the stream calls the slide."""
    windows: NDArray[np.int64]
    """(n, 2) top-left (y, x), whole level-0 pixels."""
    values: Values
    """(n, C) or (n, C, h, w)."""

    def __len__(self) -> int:
        return len(self.windows)


class Collector:
    """Your own processing of a stream: subclass it where a function is not enough.

    >>> class UntilEnough(Collector):
    ...     seen = 0
    ...     def process(self, batch):
    ...         self.seen += len(batch.x)
    ...         return batch.x.mean((2, 3))
    ...     @property
    ...     def finished(self):
    ...         return self.seen >= 1000
    """

    @property
    def about(self) -> dict[str, Any]:
        """What decides its values, as plain values; a later session must say the same."""
        return {}

    def begin(self) -> None:
        """Called before the first batch."""

    def process(self, batch: PatchBatch) -> Any:
        """Make something of a batch.

        Parameters
        ----------
        batch : PatchBatch
            ``batch.x``, ``batch.slides``, ``batch.windows``.

        Returns
        -------
        (N,), (N, C) or (N, C, h, w) array, sequence of CollectedPiece, or None
            Values of all windows; pieces of some of them; or nothing to be kept.
        """
        raise NotImplementedError

    @property
    def finished(self) -> bool:
        """Whether it has seen enough; asked after each batch."""
        return False

    def end(self) -> None:
        """Called after the last batch, also after an error."""


class FunctionCollector(Collector):
    """A function ``process(x, slides, windows)``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def about(self) -> dict[str, Any]:
        """Its name: another function's values do not belong in the same files."""
        kind = type(self._function)
        return {"function": getattr(self._function, "__qualname__", kind.__qualname__)}

    def process(self, batch: PatchBatch) -> Any:
        """Call it."""
        return self._function(*batch)


class ModelCollector(Collector):
    """A model as `napari_wsi_heatmap.load_model` takes it: in evaluation mode, on its device.

    Parameters
    ----------
    model : str, nn.Module or HeatmapModel
    device : str
        "auto", "cpu", "cuda", …
    **settings
        As for `load_model`: transform, output, activation, trust, …
    """

    def __init__(self, model: Any, device: str = "auto", **settings: Any) -> None:
        from napari_wsi_heatmap.devices import choose_devices
        from napari_wsi_heatmap.models import load_model

        self._model = load_model(model, **settings)
        self._device = choose_devices(device, self._model)[0]

    @property
    def about(self) -> dict[str, Any]:
        """The model's name and digest."""
        return {"model": self._model.name, "sha256": self._model.sha256}

    def begin(self) -> None:
        """Bring the model to its device."""
        self._model.to(self._device)

    def process(self, batch: PatchBatch) -> Any:
        """Values of a batch, by the model."""
        from napari_wsi_heatmap.models.base import inference

        with inference(self._device):
            return self._model.rows(batch.x.to(self._device)).cpu()

    def end(self) -> None:
        """Give the model back as it was."""
        self._model.restore()


def collector_of(process: Any) -> Collector:
    """Make a collector of what people give: one, its class, a module or a function."""
    if isinstance(process, type) and issubclass(process, Collector):
        return process()
    if isinstance(process, Collector):
        return process
    if isinstance(process, str) or hasattr(process, "state_dict") or hasattr(process, "sha256"):
        return ModelCollector(process)
    if callable(process):
        return FunctionCollector(process)
    raise ModelOutputError(
        f"{process!r} makes nothing of a batch",
        do="give a function of (x, slides, windows), a Collector or a model",
    )


def pieces_of(made: Any, batch: PatchBatch) -> Iterator[CollectedPiece]:
    """Split what a collector made of a batch by slide, in the order of the windows.

    Raises
    ------
    ModelOutputError
        If it is not one value, or one row of them, for each window.
    """
    if made is None:
        return
    if isinstance(made, CollectedPiece):
        made = [made]
    if isinstance(made, (list, tuple)) and all(isinstance(p, CollectedPiece) for p in made):
        yield from (_checked(piece) for piece in made if len(piece))
        return
    values, windows = as_values(made, len(batch.slides)), np.asarray(batch.windows)
    for slide in dict.fromkeys(batch.slides):
        mine = [i for i, name in enumerate(batch.slides) if name == slide]
        yield CollectedPiece(slide, windows[mine], values[mine])


def _checked(piece: CollectedPiece) -> CollectedPiece:
    windows = np.asarray(piece.windows)
    values = as_values(piece.values, len(windows))
    return CollectedPiece(piece.slide, np.rint(windows).astype(np.int64).reshape(-1, 2), values)


def as_values(made: Any, n: int) -> Values:
    """Bring values to (n, C) or (n, C, h, w) float32."""
    if hasattr(made, "detach"):
        made = made.detach().cpu()
    try:
        values = np.asarray(made, np.float32)
    except (TypeError, ValueError) as error:
        raise ModelOutputError(f"{type(made).__name__} is no array", do=SHAPES) from error
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim not in (2, 4) or len(values) != n:
        raise ModelOutputError(f"values are {values.shape} for {n} windows", do=SHAPES)
    return values


SHAPES = "return (N,), (N, C) or (N, C, h, w), CollectedPieces or None"
