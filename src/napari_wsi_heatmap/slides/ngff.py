"""What an OME-Zarr (OME-NGFF 0.4 and 0.5) says of itself, and whether it is a slide.

A slide is an image of three channels of 8 bits. Everything else that lies in folders of this
kind (plates, labels, maps, images of fluorescence) is refused by a line that says what it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.errors import HeatmapError, SlideOpenError, one_line
from napari_wsi_heatmap.runfolder import RECORD, is_store
from napari_wsi_heatmap.slides.ngffscale import dicts, pixel_size
from napari_wsi_heatmap.slides.probe import MAX_SIDE
from napari_wsi_heatmap.slides.zarrarray import stored_array
from napari_wsi_heatmap.slides.zarrfolder import ARRAY, MAX_METADATA, ZarrFolder
from napari_wsi_heatmap.slides.zarrlevel import Axes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_wsi_heatmap.slides.zarrarray import StoredArray
    from napari_wsi_heatmap.slides.zarrfolder import Node

    Mpp = tuple[float, float]

MOST_LEVELS = 64
MOST_SERIES = 64
SMALLEST_CHUNK, MOST_SMALL = 16, 64
"""A level has no more than so many chunks of fewer pixels along an axis: each is a file."""
_LAYOUT = "bioformats2raw.layout"
_RGB8 = "open it with another reader, or convert it to 8-bit RGB"
_ITS_FOLDER = "open the folder of an image inside it"
_OTHERS = (
    ("plate", "a plate of many images"),
    ("well", "a well of a plate"),
    ("labels", "a collection of labels"),
    (_LAYOUT, "a collection of images"),
)
_RGB_COLOURS = ["FF0000", "00FF00", "0000FF"]


@dataclass
class Image:
    """An image that is a slide."""

    place: str
    """Of its group within the folder."""
    version: str
    zarr_format: int
    axes: Axes
    axis_names: tuple[str, ...]
    arrays: tuple[StoredArray, ...]
    """Finest first."""
    mpp: Mpp | None
    missing: str | None
    """Why there is no `mpp`."""
    name: str
    warnings: list[str] = field(default_factory=list)


def read_image(folder: ZarrFolder) -> Image:
    """Understand the metadata of a folder.

    Returns
    -------
    Image
        Of the folder, or the first series of one that holds several (bioformats2raw).

    Raises
    ------
    SlideOpenError
        If the folder holds no slide, saying what it holds instead.
    """
    node = folder.node()
    if node is None:
        raise SlideOpenError("no Zarr metadata in it", folder.path, "check the path")
    _refuse_heatmap(folder.path)
    if _LAYOUT not in _ome(node) or "multiscales" in _ome(node):
        return _image(folder, node)
    series = list(_series(folder))
    if not series:
        raise _refuse("a collection without an image", folder.path, "copy or convert it again")
    image = _image(folder, series[0])
    if len(series) > 1:
        image.warnings.append(f"of its {len(series)} images only the first is shown")
    return image


def is_rgb_image(path: str) -> bool:
    """Tell whether a folder is an OME-Zarr that opens as a slide; reads only JSON."""
    try:
        read_image(ZarrFolder(os.path.abspath(path)))
    except SlideOpenError:
        return False
    return True


def _refuse_heatmap(path: str) -> None:
    try:
        record = os.path.join(path, RECORD)
        ours = os.path.isfile(record) and os.path.getsize(record) > MAX_METADATA
        ours = ours or is_store(Path(path))
    except HeatmapError:
        ours = True
    if ours:
        raise _refuse(
            "a heatmap, not a slide", path,
            f"show it on its slide: napari-wsi-heatmap view SLIDE {os.path.basename(path)},"
            " or read it with open_heatmap",
        )  # fmt: skip


def _refuse(what: str, where: str, do: str) -> SlideOpenError:
    return SlideOpenError(f"it is {what}", where, do)


def _ome(node: Node) -> dict[str, Any]:
    if node.zarr_format == 2:
        return node.attributes
    found = node.attributes.get("ome")
    return found if isinstance(found, dict) else {}


def _series(folder: ZarrFolder) -> Iterator[Node]:
    """Images of a collection: as it lists them, else those named 0, 1, 2."""
    listing = folder.node("OME")
    listed = None if listing is None else _ome(listing).get("series")
    names = listed if isinstance(listed, list) else [str(i) for i in range(MOST_SERIES)]
    for name in names[:MOST_SERIES]:
        node = folder.node(name)
        if node is None and names is not listed:
            return
        if node is not None and "multiscales" in _ome(node):
            yield node


def _image(folder: ZarrFolder, node: Node) -> Image:
    return _ImageReader(folder, node).image()


class _ImageReader:
    """Reads the metadata of one image; every refusal names it."""

    def __init__(self, folder: ZarrFolder, node: Node) -> None:
        self.folder, self.node = folder, node
        self.where = folder.absolute(node.place) if node.place else folder.path
        self.ome = _ome(node)

    def image(self) -> Image:
        scales = self._multiscales()
        version = self._version(scales)
        names = self._axis_names(scales)
        self._refuse_unless_colour(names)
        axes = Axes(names.index("y"), names.index("x"), names.index("c"))
        datasets = self._levels(scales, axes, len(names))
        mpp, missing = pixel_size(scales, datasets[0][0], axes, len(names))
        arrays = tuple(array for _, array in datasets)
        for array in arrays:
            self._check(array, axes)
        name = one_line(scales.get("name") or os.path.basename(self.folder.path), 80)
        warnings = [*self._warnings(arrays[0], axes)]
        return Image(
            *(self.node.place, version, self.node.zarr_format, axes, names, arrays),
            *(mpp, missing, name, warnings),
        )

    def _multiscales(self) -> dict[str, Any]:
        found = self.ome.get("multiscales")
        if self.node.kind == ARRAY:
            raise _refuse("a single Zarr array", self.where, "open the image's folder around it")
        if "image-label" in self.ome:
            raise _refuse(
                "an image of labels, not a slide", self.where, "open it with napari itself"
            )
        if isinstance(found, list) and found and isinstance(found[0], dict):
            return found[0]
        for key, what in _OTHERS:
            if key in self.ome:
                raise _refuse(f"{what}, not one image", self.where, _ITS_FOLDER)
        if self.node.zarr_format == 3 and "multiscales" in self.node.attributes:
            raise self._wrong_version("older than 0.5, in Zarr 3")
        raise _refuse(
            "a Zarr folder without an OME image (no multiscales)", self.where, _ITS_FOLDER
        )

    def _version(self, scales: dict[str, Any]) -> str:
        third = self.node.zarr_format == 3
        version = str(self.ome.get("version") if third else scales.get("version", "0.4"))
        if not f"{version}.".startswith("0.5." if third else "0.4."):
            raise self._wrong_version(one_line(version, 20))
        return version

    def _wrong_version(self, version: str) -> SlideOpenError:
        return SlideOpenError(
            f"OME-Zarr {version} is not read", self.where, "convert it to OME-Zarr 0.4 or 0.5"
        )

    def _axis_names(self, scales: dict[str, Any]) -> tuple[str, ...]:
        axes = dicts(scales.get("axes"))
        names = tuple(str(axis.get("name")).lower() for axis in axes)
        if len(set(names)) != len(names) or not {"y", "x"} <= set(names):
            raise self.folder.damaged(f"its axes are {one_line(names, 80)}")
        return names

    def _refuse_unless_colour(self, names: tuple[str, ...]) -> None:
        if "c" not in names:
            raise self._not_rgb("has no axis of channels")

    def _not_rgb(self, what: str) -> SlideOpenError:
        return SlideOpenError(f"the image {what}: not an RGB slide", self.where, _RGB8)

    def _levels(
        self, scales: dict[str, Any], axes: Axes, count: int
    ) -> list[tuple[dict[str, Any], StoredArray]]:
        """Datasets and their arrays, finest first, whatever their order in the file."""
        datasets = dicts(scales.get("datasets"))
        if not 1 <= len(datasets) <= MOST_LEVELS:
            raise self.folder.damaged(f"it lists {len(datasets)} levels")
        found = [(dataset, self._array(dataset)) for dataset in datasets]
        for _, array in found:
            if len(array.shape) != count:
                raise self.folder.damaged(f"{array.place} has not {count} axes, as it should")
        return sorted(found, key=lambda one: -one[1].shape[axes.y] * one[1].shape[axes.x])

    def _array(self, dataset: dict[str, Any]) -> StoredArray:
        path = dataset.get("path")
        if not isinstance(path, str) or not path.strip("/"):
            raise self.folder.damaged(f"a level has the path {one_line(repr(path), 40)}")
        place = f"{self.node.place}/{path}" if self.node.place and path[0] != "/" else path
        node = self.folder.node(place)
        if node is None or node.kind != ARRAY or node.zarr_format != self.node.zarr_format:
            raise self.folder.damaged(f"the array {one_line(path, 60)!r} of a level is missing")
        return stored_array(self.folder, node)

    def _check(self, array: StoredArray, axes: Axes) -> None:
        channels = array.shape[axes.c]
        if channels != 3:
            raise self._not_rgb(f"has {channels} channel{'s' * (channels > 1)} instead of 3")
        for axis in (axes.y, axes.x):
            side, chunk = array.shape[axis], array.chunk[axis]
            if side > MAX_SIDE:
                raise self.folder.damaged(f"{array.place} claims {side} pixels along an axis")
            if chunk < SMALLEST_CHUNK and side > chunk * MOST_SMALL:
                raise SlideOpenError(
                    f"its chunks have {chunk} pixels along an axis of {side}",
                    self.where,
                    "write it again in larger chunks",
                )

    def _warnings(self, array: StoredArray, axes: Axes) -> Iterator[str]:
        if len(self.ome["multiscales"]) > 1:
            yield f"of its {len(self.ome['multiscales'])} images only the first is shown"
        if any(n > 1 for axis, n in enumerate(array.shape) if axis not in axes):
            yield "of its planes (Z or T) only the first is shown"
        omero = self.ome.get("omero")
        channels = dicts(omero.get("channels")) if isinstance(omero, dict) else []
        colours = [str(channel.get("color")).lstrip("#").upper()[:6] for channel in channels]
        if len(set(colours)) > 1 and colours != _RGB_COLOURS:
            yield f"its channels are coloured {', '.join(colours)[:60]}, shown as red, green, blue"
