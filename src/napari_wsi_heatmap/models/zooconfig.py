"""`config.json` of a WSInfer zoo model: what it wants to see, and what it says.

The keys are those of the schema of wsinfer-zoo; `spec_version` and `architecture` may be missing,
as wsinfer allows. Transforms are Resize, ToTensor and Normalize, in this order.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from napari_wsi_heatmap.errors import HeatmapError, ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_BYTES: Final = 1 << 20
REQUIRED: Final = (
    "num_classes", "class_names", "patch_size_pixels", "spacing_um_px", "transform",
)  # fmt: skip
TRANSFORMS: Final = ("Resize", "ToTensor", "Normalize")


@dataclass(frozen=True)
class ZooConfig:
    """What a zoo model says of itself."""

    names: tuple[str, ...]
    """One per output."""
    patch: int
    """Pixels along a patch, at `spacing`."""
    spacing: float
    """µm per pixel of the patch."""
    size: int
    """Pixels along what the network takes: the patch, resized."""
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    """Of each channel; None where nothing is normalised."""
    architecture: str | None = None
    """What timm calls it, if that is said."""

    @property
    def mpp(self) -> float:
        """µm per pixel of what the network takes."""
        return self.spacing * self.patch / self.size

    @property
    def activation(self) -> str:
        """WSInfer's rule: softmax of several outputs, sigmoid of one."""
        return "softmax" if len(self.names) > 1 else "sigmoid"


def read_config(path: Path) -> ZooConfig:
    """Read and check a `config.json`.

    Raises
    ------
    ModelLoadError
        Naming the key that is missing or cannot be.
    """
    try:
        return _checked(_object(path))
    except HeatmapError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"no config of a WSInfer model: {error}", path, _DO) from error


_DO: Final = "compare it with the config.json of a model of the WSInfer zoo"


def _object(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"it has more than {LARGEST_BYTES} bytes")
    with path.open("rb") as file:
        config = json.loads(file.read(LARGEST_BYTES + 1))
    if not isinstance(config, dict):
        raise ValueError("it holds no object")
    missing = [key for key in REQUIRED if key not in config]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    return config


def _checked(config: dict[str, Any]) -> ZooConfig:
    patch = _whole("patch_size_pixels", config["patch_size_pixels"])
    size, (mean, std) = _transforms(config["transform"])
    return ZooConfig(
        names=_names(config["class_names"], _whole("num_classes", config["num_classes"])),
        patch=patch,
        spacing=_number("spacing_um_px", config["spacing_um_px"]),
        size=patch if size is None else size,
        mean=mean,
        std=std,
        architecture=_text(config.get("architecture")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _names(names: Any, count: int) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
        raise ValueError("class_names must be a list of texts")
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"class_names must be {count} different texts, as num_classes says")
    return tuple(names)


Statistics = tuple[tuple[float, ...] | None, tuple[float, ...] | None]


def _transforms(steps: Any) -> tuple[int | None, Statistics]:
    """Size that is resized to, and mean and standard deviation; each None if not there."""
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ValueError("transform must be a list of objects")
    order = [step.get("name") for step in steps]
    if "ToTensor" not in order or order != [name for name in TRANSFORMS if name in order]:
        raise ValueError(f"transform must be {', '.join(TRANSFORMS)} in this order, not {order}")
    arguments = {step["name"]: step.get("arguments") or {} for step in steps}
    if not all(isinstance(given, dict) for given in arguments.values()):
        raise ValueError("arguments of a transform must be an object")
    return _size(arguments.get("Resize")), _statistics(arguments.get("Normalize"))


def _size(resize: dict[str, Any] | None) -> int | None:
    if resize is None:
        return None
    sides = resize.get("size")
    square = isinstance(sides, list) and len(sides) == 2 and sides[0] == sides[1]
    return _whole("size of Resize", sides[0] if square else sides)  # type: ignore[index]


def _statistics(normalize: dict[str, Any] | None) -> Statistics:
    if normalize is None:
        return None, None
    mean, std = (_three(normalize.get(key)) for key in ("mean", "std"))
    if min(std) <= 0:
        raise ValueError("std of Normalize must be above 0")
    return mean, std


def _three(values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != 3 or not all(map(_is_number, values)):
        raise ValueError("mean and std of Normalize must be three numbers each")
    return tuple(map(float, values))


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 16:
        raise ValueError(f"{key}={value!r} must be a whole number, 1 to {1 << 16}")
    return value


def _number(key: str, value: Any) -> float:
    if not _is_number(value) or value <= 0:
        raise ValueError(f"{key}={value!r} must be a number above 0")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
