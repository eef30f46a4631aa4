"""Bags of features: what CLAM, TRIDENT, STAMP and MIL-Lab have written of a slide's patches.

Memory bound: the features once, float32, and one block of `BLOCK_BYTES` of them (or one chunk of
the file, if that is more). Above a gigabyte they lie in a scratch file that the operating system
pages, so that they may be larger than memory. A .pt is read at one go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_wsi_heatmap.errors import FeatureError
from napari_wsi_heatmap.growing import empty_values
from napari_wsi_heatmap.mil.places import (
    Places,
    no_coords,
    places_beside,
    places_in,
    read_coords,
    refuse_other_count,
    refuse_too_many,
    sized_beside,
)
from napari_wsi_heatmap.mil.plainh5 import AGAIN, dataset_of, opened_h5, plain_attrs

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray

    Values = NDArray[np.float32]
    Pair = tuple[float, float]

NAMES: Final = ("features", "feats")
"""Of the dataset, in CLAM, TRIDENT and MIL-Lab, and in STAMP."""
BLOCK_BYTES: Final = 64 << 20
"""Of features, as they are in the file, that are read at a time."""
IN_H5: Final = (".h5", ".hdf5")
IN_TENSORS: Final = (".pt", ".pth", ".bin", ".safetensors")


@dataclass(frozen=True, eq=False)
class SlideFeatures:
    """Features of the patches of one slide.

    Attributes
    ----------
    features : (N, D) float32
        Finite. Above a gigabyte it lies in a scratch file that the operating system pages.
    coords : (N, 2) int64 or float64, or None
        Top-left corner (y, x) of each patch, level-0 pixels; None if nothing says them.
    patch_size : (float, float) or None
        (height, width) of a patch, level-0 pixels; None if nothing says it.
    attrs : mapping
        Attributes of the file, of its features and of its coordinates, as plain values; of a
        store the names and digests of the encoder and the plan.
    layout : {"clam", "trident", "stamp", "tensor", "store"}
        Who writes such files: CLAM and MIL-Lab; TRIDENT; STAMP; a bare tensor of torch.save; a
        store of this package.
    path : Path or None
    notices : tuple of str
        What the user should know, a line each: patches in one place, a size that was guessed.
    index : (N,) int64 or None
        Of a store: which windows of its grid, or of its list, these are.
    """

    features: Values
    coords: NDArray[Any] | None = None
    patch_size: Pair | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "tensor"
    path: Path | None = None
    notices: tuple[str, ...] = ()
    index: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.features)


def read_features(
    path: str | os.PathLike[str],
    *,
    coords: str | os.PathLike[str] | ArrayLike | Places | None = None,
    patch_size: float | Pair | None = None,
    mpp: float | Pair | None = None,
    need_coords: bool = True,
    in_dim: int | None = None,
) -> SlideFeatures:
    """Read the features of a slide's patches, and where these lie.

    Parameters
    ----------
    path : path
        ``.h5`` of CLAM, TRIDENT, STAMP or MIL-Lab (dataset ``features`` or ``feats``, N x D or
        1 x N x D); ``.pt`` with such a tensor, bare or as ``features`` / ``feats`` of a dict; or
        a store ``OUT.zarr`` of `encode` or of a run whose model gives features.
    coords : path, array (N, 2) or Places, optional
        Where they lie, instead of what the file says: an .h5 with ``coords``, or top-left (y, x)
        in level-0 pixels. For a file without any they are looked for beside it: ``NAME.h5`` in
        its folder, in ``../h5_files``, in ``../patches``.
    patch_size : float or (float, float), optional
        (height, width) of a patch in level-0 pixels, where the file does not say it. The order:
        attribute ``patch_size_level0``; ``patch_size`` · ``downsample`` · ``custom_downsample``;
        this; the smallest distance of two patches, which is noticed.
    mpp : float or (float, float), optional
        (y, x) µm per level-0 pixel: STAMP places patches in µm.
    need_coords : bool
        Whether a file without coordinates is refused.
    in_dim : int, optional
        Length that the vectors must have, such as ``mil.facts.in_dim``: checked before they are
        read.

    Returns
    -------
    SlideFeatures

    Raises
    ------
    FeatureError
        In one line: not as many coordinates as features, no coordinates, another length than
        `in_dim`, no (N, D), no numbers, NaN or infinity, links out of the file.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _of_store(path, in_dim)
    given: dict[str, Any] = {"patch_size": patch_size, "mpp": mpp}
    places = None if coords is None else read_coords(coords, **given)
    ending = path.suffix.lower()
    if ending in IN_H5:
        found = _of_h5(path, places, in_dim, need_coords, given)
    elif ending in IN_TENSORS:
        found = _of_tensors(path, places, in_dim, given)
    else:
        known = ", ".join(IN_H5 + IN_TENSORS)
        raise FeatureError(f"no features in {ending or 'such files'}", path, f"there are {known}")
    if found.coords is None and need_coords:
        raise no_coords(path)
    return found


def _of_store(path: Path, in_dim: int | None) -> SlideFeatures:
    from napari_wsi_heatmap.mil.kept import features_in_store

    return features_in_store(path, in_dim)


def _of_h5(
    path: Path, places: Places | None, in_dim: int | None, need_coords: bool, given: dict[str, Any]
) -> SlideFeatures:
    with opened_h5(path) as file:
        node = dataset_of(file, NAMES, path)
        if node is None:
            raise FeatureError(f"it has no features, but {_names(file)}", path, AGAIN)
        attrs = plain_attrs(file) | plain_attrs(node)
        layout = _layout(node, attrs, dataset_of(file, ("coords",), path))
        _refuse_slide_level(attrs, path)
        rows, length = matrix_shape(node.shape, path)
        refuse_length(length, in_dim, path)
        if places is None and (need_coords or not _without_unit(attrs, given)):
            places = places_in(file, path, **given, wanted=rows)
        features = _read_blocks(node, rows, length, path)
    if places is None:
        places = places_beside(path, **given, wanted=rows)
    elif places.path == path:
        places = sized_beside(places, path)
    return _together(features, places, attrs, layout, path)


def _without_unit(attrs: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether places in µm could not be told in pixels, and nobody needs them."""
    return "tile_size_um" in attrs and given["mpp"] is None


def _of_tensors(
    path: Path, places: Places | None, in_dim: int | None, given: dict[str, Any]
) -> SlideFeatures:
    from napari_wsi_heatmap.mil.tensorbag import read_tensor_bag

    tensor, inside = read_tensor_bag(path)
    rows, length = matrix_shape(tuple(tensor.shape), path)
    refuse_length(length, in_dim, path)
    if places is None and inside is not None:
        places = read_coords(inside, **given)
    if places is None:
        places = places_beside(path, **given, wanted=rows)
    features = _filled(tensor.reshape(rows, length), rows, length, path)
    return _together(features, places, {}, "tensor", path)


def _together(
    features: Values, places: Places | None, attrs: Mapping[str, Any], layout: str, path: Path
) -> SlideFeatures:
    if places is None:
        return SlideFeatures(features, attrs=dict(attrs), layout=layout, path=path)
    refuse_other_count(len(features), len(places), path)
    return SlideFeatures(
        features,
        places.coords,
        places.patch_size,
        {**attrs, **places.attrs},
        layout,
        path,
        places.notices,
    )


def matrix_shape(shape: tuple[int, ...], path: object) -> tuple[int, int]:
    """(N, D) of a shape (N, D) or (1, N, D).

    Raises
    ------
    FeatureError
        If it is another one, or there are none.
    """
    inner = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    refuse_too_many(inner[0] if inner else 0, path)
    if len(inner) == 2 and all(inner):
        return int(inner[0]), int(inner[1])
    alone = len(inner) == 1 and inner[0] > 0
    what = "one vector of the whole slide" if alone else f"features of shape {shape}"
    raise FeatureError(what, path, "give (N, D): a vector for each patch, and at least one")


def refuse_length(length: int, in_dim: int | None, path: object) -> None:
    """Refuse vectors of another length than a checkpoint was trained on, naming likely encoders."""
    if in_dim is not None and length != in_dim:
        from napari_wsi_heatmap.models.mil.features import other_length

        raise FeatureError(other_length(length, in_dim), path, "use the features it was made for")


def _layout(node: Any, attrs: Mapping[str, Any], coords: Any) -> str:
    if node.name.endswith("feats") or "feat_type" in attrs:
        return "stamp"
    at_level0 = coords is not None and "patch_size_level0" in coords.attrs
    return "trident" if at_level0 or "encoder" in node.attrs else "clam"


def _refuse_slide_level(attrs: Mapping[str, Any], path: Path) -> None:
    kind = attrs.get("feat_type")
    if kind not in (None, "tile"):
        raise FeatureError(f"it holds features of a {kind}, not of tiles", path, AGAIN)


def _names(file: Any) -> str:
    return ", ".join(list(file)[:5]) or "nothing at all"


def _read_blocks(node: Any, rows: int, length: int, path: Path) -> Values:
    """Read a dataset (N, D) or (1, N, D), some rows at a time."""
    chunk = (node.chunks or (1,) * node.ndim)[-2]
    each = max(1, BLOCK_BYTES // (length * node.dtype.itemsize) // chunk) * chunk
    blocks = (node[..., begin : begin + each, :] for begin in range(0, rows, each))
    return _gathered(blocks, rows, length, path)


def _filled(tensor: Any, rows: int, length: int, path: Path) -> Values:
    """Copy a tensor (N, D), some rows at a time."""
    each = max(1, BLOCK_BYTES // (length * tensor.element_size()))
    blocks = (tensor[begin : begin + each].float().numpy() for begin in range(0, rows, each))
    return _gathered(blocks, rows, length, path)


def _gathered(blocks: Iterator[NDArray[Any]], rows: int, length: int, path: Path) -> Values:
    features, at, bad, first = empty_values((rows, length), "features"), 0, 0, 0
    for block in blocks:
        part = features[at : at + block.size // length]
        with np.errstate(over="ignore"):
            part[:] = block.reshape(-1, length)
        wrong = np.flatnonzero(~np.isfinite(part).all(1))
        first = at + int(wrong[0]) if len(wrong) and not bad else first
        bad, at = bad + len(wrong), at + len(part)
    if bad:
        what = f"{bad} of {rows} feature vectors hold NaN or infinity, the first is patch {first}"
        raise FeatureError(what, path, "extract the features again")
    return features
