"""Files of a Zarr folder, read with bounds: its metadata, and one by one its chunks.

Whatever stands in a folder may be hostile: a metadata file of a gigabyte, a pipe instead of a
chunk, a path that leads to somebody's home. Nothing is listed, since a slide has up to a million
chunks, and nothing is opened that is not a regular file.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import SlideOpenError, one_line

if TYPE_CHECKING:
    from io import BufferedReader

MAX_METADATA = 4 << 20
"""Bytes of a metadata file; that of an image has some thousand."""
GROUP, ARRAY = "group", "array"
_LONGEST_PLACE = 256
_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _flag, 0)  # without O_NONBLOCK, opening a pipe waits for a writer


@dataclass(frozen=True)
class Node:
    """What the metadata say of a group or an array."""

    place: str
    """Path within the folder, "" for the folder itself."""
    zarr_format: int
    kind: str
    """`GROUP` or `ARRAY`."""
    metadata: dict[str, Any]
    attributes: dict[str, Any]


class ZarrFolder:
    """A folder that holds a Zarr hierarchy.

    Parameters
    ----------
    path : str

    Attributes
    ----------
    files : dict of str to bytes
        Metadata files that were read, by their path, and their content.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[str, bytes] = {}
        self._real = os.path.realpath(path)

    def node(self, place: Any = "") -> Node | None:
        """Read the metadata of a group or an array; None where there is none.

        Raises
        ------
        SlideOpenError
            If it is no JSON, too large, or lies outside of the folder.
        """
        place = self._inside(place)
        third = self._json(place, "zarr.json")
        if third is not None:
            return _node3(place, third)
        array = self._json(place, ".zarray")
        attributes = self._json(place, ".zattrs")
        if array is not None:
            return Node(place, 2, ARRAY, array, attributes or {})
        group = self._json(place, ".zgroup")
        if group is None and attributes is None:
            return None
        return Node(place, 2, GROUP, group or {}, attributes or {})

    def absolute(self, place: str, name: str = "") -> str:
        """Path of a file in the folder."""
        return os.path.join(self.path, *place.split("/"), *name.split("/"))

    def _inside(self, place: Any) -> str:
        if place == "":
            return ""
        if not isinstance(place, str) or len(place) > _LONGEST_PLACE or not place.isprintable():
            raise self.damaged(f"{one_line(repr(place), 40)} is no path of an array")
        parts = place.strip("/").split("/")
        real = os.path.realpath(self.absolute("/".join(parts)))
        outside = os.path.isabs(place) or "\\" in place or ".." in parts or ":" in place
        if outside or not real.startswith(os.path.join(self._real, "")):
            raise SlideOpenError(
                f"its metadata lead out of its folder ({one_line(place, 60)!r})",
                self.path,
                "copy all of it into one folder",
            )
        return "/".join(parts)

    def _json(self, place: str, name: str) -> dict[str, Any] | None:
        path = self.absolute(place, name)
        try:
            content = _read(path)
            if content is None:
                return None
            found = json.loads(content)
        except OSError as error:
            raise SlideOpenError(
                f"{name} cannot be read: {error.strerror or error}", path
            ) from error
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"{place}/{name}".strip("/") + " is no JSON") from error
        self.files[path] = content
        if not isinstance(found, dict):
            raise self.damaged(f"{place}/{name}".strip("/") + " is no JSON object")
        return found

    def damaged(self, what: str) -> SlideOpenError:
        """Make the error of metadata that make no sense."""
        return SlideOpenError(f"damaged: {what}", self.path, "copy or convert it again")


def _node3(place: str, metadata: dict[str, Any]) -> Node:
    kind = ARRAY if metadata.get("node_type") == ARRAY else GROUP
    attributes = metadata.get("attributes")
    return Node(place, 3, kind, metadata, attributes if isinstance(attributes, dict) else {})


def _read(path: str) -> bytes | None:
    try:
        file = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with file:
        if os.fstat(file.fileno()).st_size > MAX_METADATA:
            raise OSError(f"it has more than {MAX_METADATA >> 20} MB, that of an image has some kB")
        return file.read(MAX_METADATA)


def open_regular(path: str) -> BufferedReader:
    """Open a file for reading, unless it is a pipe, a device or a folder.

    Raises
    ------
    OSError
        As `open` does, and if it is no regular file.
    """
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return os.fdopen(descriptor, "rb")
