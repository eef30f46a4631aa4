"""HDF5 files of others, read as plain files: nothing outside of them is ever opened."""

from __future__ import annotations

import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_wsi_heatmap.errors import FeatureError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AGAIN = "extract the features again, or copy the file again"


@contextmanager
def opened_h5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file to read.

    Raises
    ------
    FeatureError
        If it is no plain file or no HDF5; also of whatever h5py raises while it is open.
    """
    import h5py

    _refuse_no_file(path)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FeatureError:
        raise
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, MemoryError) as error:
        what = f"the HDF5 file cannot be read: {one_line(error, 150)}"
        raise FeatureError(what, path, AGAIN) from error


def _refuse_no_file(path: Path) -> None:
    # A pipe that nobody writes to would make us wait for ever.
    try:
        plain = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FeatureError(f"the file cannot be read: {reason}", path, "check the path") from error
    if not plain:
        raise FeatureError("it is no plain file", path, "choose a file of features")


def dataset_of(file: Any, names: tuple[str, ...], path: Path) -> Any:
    """Return the first dataset of numbers among some names at the root; None if there is none.

    Raises
    ------
    FeatureError
        If it is a link, lies in another file, or holds no numbers.
    """
    import h5py

    for name in names:
        link = file.get(name, getlink=True)
        if link is None:
            continue
        # A soft link may lead through an external one: neither is followed.
        if not isinstance(link, h5py.HardLink):
            what = f"{name!r} in it is a link to {_target(link)}"
            raise FeatureError(what, path, "copy what it names into the file")
        return _numbers(file[name], name, path)
    return None


def _target(link: Any) -> str:
    inside = one_line(getattr(link, "path", "?"), 80)
    outside = getattr(link, "filename", None)
    return repr(inside) if outside is None else f"another file, {one_line(outside, 80)!r}"


def _numbers(node: Any, name: str, path: Path) -> Any:
    import h5py

    if not isinstance(node, h5py.Dataset):
        raise FeatureError(f"{name!r} in it is a group", path, "give a file of features")
    if node.external or node.is_virtual:
        raise FeatureError(f"{name!r} in it lies in other files", path, "copy it into the file")
    if node.dtype.kind not in "fiu":
        raise FeatureError(f"{name!r} in it holds {node.dtype}, no numbers", path, AGAIN)
    if node.size and not node.id.get_storage_size():
        raise FeatureError(f"{name!r} in it was never written", path, AGAIN)
    return node


def plain_attrs(node: Any) -> dict[str, Any]:
    """Attributes of a file or dataset as Python values; TRIDENT's ``'None'`` as None."""
    return {} if node is None else {name: _plain(value) for name, value in node.attrs.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    return None if text == "None" else text
