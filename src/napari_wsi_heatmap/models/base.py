"""The contract of a model: what it wants to see, what it says, and how it is called."""

from __future__ import annotations

import abc
import contextlib
import copy
import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from napari_wsi_heatmap.errors import HeatmapError, ModelOutputError, ModelRunError, one_line
from napari_wsi_heatmap.models.arithmetic import fixed_algorithms
from napari_wsi_heatmap.models.identity import module_sha256
from napari_wsi_heatmap.models.memory import out_of_memory
from napari_wsi_heatmap.models.named import default_names
from napari_wsi_heatmap.models.outputs import as_features, drawn, select_features
from napari_wsi_heatmap.models.settings import switched_off
from napari_wsi_heatmap.models.tta import added_names, averaged, views_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_wsi_heatmap.models.outputs import Output

Tensor = torch.Tensor


class HeatmapModel(abc.ABC):
    """A model that gives each window one value per output, or a small map of them.

    Attributes
    ----------
    name : str
        Short name; that of the layer and of the output.
    window : (int, int)
        (height, width) in pixels that the model sees.
    mpp : float or None
        µm per pixel at which it wants to see them; None: whatever level is read.
    names : tuple of str or None
        One per output; None until the dry run has counted them.
    transform : callable or None
        (N, 3, H, W) float32 in 0…1 -> what the model takes, on the device.
    activation : {"softmax", "sigmoid", None}
        Applied to what the model returns.
    tta : {"flips", "dihedral", None}
        Test-time augmentation: how many views of each window are averaged, see `models.tta`.
    output : int, str, (int or str, int or str) or None
        Which element of a tuple or key of a dict is drawn, or which class of a tensor by its name
        or index; both together: which class of which element. None: all classes.
    features : int, str or None
        Which element or key is a feature vector (N, D), kept beside the values.
    output_stride : float or None
        Pixels of the window per cell of a dense output; None: window / h.
    batch_size : int or None
        Number of windows that suits the model; None: measured at the dry run.
    unit : str
        Unit of its values, for the colour bar.
    limits : (float, float) or None
        Values that the colour map should span; None: those that occur.
    concurrent : bool
        Whether several threads may call it at once: it keeps nothing between its calls.
    any_layout : bool
        Whether it takes patches with their channels last in memory as well.
    """

    name: str
    window: tuple[int, int] = (224, 224)
    mpp: float | None = None
    names: tuple[str, ...] | None = None
    transform: Callable[[Tensor], Tensor] | None = None
    activation: str | None = None
    tta: str | None = None
    output: Output = None
    features: int | str | None = None
    output_stride: float | None = None
    batch_size: int | None = None
    unit: str = ""
    limits: tuple[float, float] | None = None
    concurrent: bool = False
    any_layout: bool = False

    @property
    @abc.abstractmethod
    def sha256(self) -> str:
        """Hex digest of what decides its values; costs reading its weights."""

    @abc.abstractmethod
    def forward(self, batch: Tensor) -> Any:
        """Run on (N, 3, H, W), already transformed."""

    @property
    def module(self) -> torch.nn.Module | None:
        """The layers that it runs; None for a plain function."""
        return None

    def to(self, device: torch.device) -> None:  # noqa: B027 - a function has nothing to move
        """Move to `device` and set evaluation mode. Nothing to do for a plain function."""

    def restore(self) -> None:  # noqa: B027 - nor to put back
        """Put back what `to` changed. Nothing to do for a plain function."""

    def few(self, nbytes: int) -> int | None:
        """How many windows of so many bytes to hand over at a time on a CPU; None: a batch.

        Only for models of which a window gets the same bits in company of any number.
        """
        return None

    @property
    def replicable(self) -> bool:
        """Whether several devices can have one each."""
        return self.module is not None

    def replica(self) -> HeatmapModel:
        """Return a copy with layers of its own, for another device.

        Raises
        ------
        ModelRunError
            If it holds what cannot be copied, such as a lock.
        """
        try:
            return copy.deepcopy(self)
        except Exception as error:
            raise ModelRunError(
                f"the model cannot be copied to a second device{_reason(error)}",
                f"model {self.name!r}",
                "choose one device",
            ) from error

    def settle(self, **settings: Any) -> None:
        """Take over settings that `models.settings.checked` has checked."""
        before = self.activation
        for name, value in switched_off(settings).items():
            setattr(self, name, value)
        if self.activation != before:  # probabilities, or no longer any
            self.unit, self.limits = "", (0.0, 1.0) if self.activation else None

    def compiled(self) -> HeatmapModel:
        """Return a copy whose `forward` torch compiles, once for each shape that it meets.

        The compiler begins at the first call, and that raises where it cannot.
        """
        twin = copy.copy(self)
        # An attribute of the copy comes before the method of its class.
        vars(twin)["forward"] = torch.compile(self.forward, dynamic=False)
        return twin

    def __call__(self, batch: Tensor) -> Tensor:
        """Values of a batch of patches.

        Parameters
        ----------
        batch : (N, 3, H, W) float
            RGB in 0…1.

        Returns
        -------
        (N, C) or (N, C, h, w) float32

        Raises
        ------
        ModelRunError
            If the model or its transform raises.
        ModelOutputError
            If what it returns cannot be placed.
        """
        return self._seen(batch)[0]

    def outputs(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values of a batch as by calling the model, and the features (N, D) float32, if any."""
        values, raw = self._seen(batch)
        if self.features is None:
            return values, None
        vectors = as_features(select_features(raw, self.features), len(batch))
        if vectors.device != values.device:
            raise ModelOutputError(
                f"the values are on {values.device} and the features on {vectors.device}",
                do="return both on one device",
            )
        return values, vectors

    def rows(self, batch: Tensor) -> Tensor:
        """Everything that a window gets, in one tensor, which is copied from a device at once.

        Returns
        -------
        (N, C) or (N, C, h, w) float32
            The values; with features (N, C · h · w + D): the values, then the features.
        """
        values, vectors = self.outputs(batch)
        return values if vectors is None else torch.cat([values.flatten(1), vectors], 1)

    def _seen(self, batch: Tensor) -> tuple[Tensor, Any]:
        """What is drawn, and all that the model returned for the windows as they are."""
        if self.tta is not None:
            return self._views_seen(batch, self.tta)
        raw = self._raw(batch)
        values, chosen = self._values(raw, len(batch))
        return values if chosen is None else values[:, chosen : chosen + 1], raw

    def _views_seen(self, batch: Tensor, kind: str) -> tuple[Tensor, Any]:
        seen: list[Tensor] = []
        plain = chosen = None
        for view in views_of(kind, batch):
            raw = self._raw(view.of(batch))
            values, chosen = self._values(raw, len(batch))
            seen.append(view.back(values))
            plain = raw if plain is None else plain
        return averaged(seen, self.activation, chosen), plain

    def _values(self, raw: Any, n: int) -> tuple[Tensor, int | None]:
        return drawn(raw, n, self.output, self.activation, self.names)

    @property
    def added(self) -> tuple[str, ...]:
        """Names of the channels of uncertainty behind those of the outputs."""
        return added_names(self.tta, self.activation)

    def chosen_class(self, batch: Tensor) -> str | None:
        """Run on a batch to tell the name of the one class that is drawn; None: all are."""
        values, chosen = self._values(self._raw(batch), len(batch))
        return None if chosen is None else (self.names or default_names(values.shape[1]))[chosen]

    def _raw(self, batch: Tensor) -> Any:
        try:
            return self.forward(batch if self.transform is None else self.transform(batch))
        except HeatmapError:
            raise
        except Exception as error:
            raise _run_error(error) from error

    def _digest(self, core: str) -> str:
        """`core`, with what is done before and after the model where there is such a thing."""
        if self.transform is None and self.activation is None and self.features is None:
            return core
        transform = self.transform and module_sha256(self.transform)
        text = f"{core} {transform} {self.activation}"
        # Only where there are features: outputs without them are recognised as ever.
        text += "" if self.features is None else f" {self.features!r}"
        return hashlib.sha256(text.encode()).hexdigest()

    def __repr__(self) -> str:
        height, width = self.window
        where = "" if self.mpp is None else f" at {self.mpp:g} µm/px"
        return f"<{type(self).__name__} {self.name!r} {height} x {width} px{where}>"


Model = TypeVar("Model", bound=HeatmapModel)


def adapted(model: Model, **settings: Any) -> Model:
    """Return `model`, or where settings are given a copy that has them."""
    if not settings:
        return model
    model = copy.copy(model)
    model.settle(**settings)
    return model


@contextlib.contextmanager
def inference(device: torch.device, dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Run models inside this: no gradients, and autocast where `dtype` is a smaller one.

    Patches stay float32; the operations that gain from `dtype` cast them.
    """
    smaller = dtype != torch.float32
    with (
        torch.inference_mode(),
        fixed_algorithms(device),
        torch.autocast(device.type, dtype=dtype if smaller else None, enabled=smaller),
    ):
        yield


def _run_error(error: Exception) -> ModelRunError:
    memory = out_of_memory(error)
    return ModelRunError(
        f"the model raised {type(error).__name__}{_reason(error)}",
        do="choose a smaller batch_size" if memory else None,
    )


def _reason(error: Exception) -> str:
    text = str(error).strip()
    # torch answers a pickle with the advice to load it unsafely; that is not ours to pass on.
    if "weights_only" in text or "weights only" in text.lower():
        return ": it tried to load weights that are not plain data"
    return f": {one_line(text.splitlines()[0])}" if text else ""
