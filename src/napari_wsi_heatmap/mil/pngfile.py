"""A PNG written a few rows at a time: Pillow would need all of them.

RGB of 8 bits; each row as differences from the pixel on the left.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.mil.picture import Picture
    from napari_wsi_heatmap.slides.base import Rgb

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEVEL = 6
DIFFERENCES = 1
"""The number of the filter that takes differences from the left."""
METRE = 1e6
"""µm."""


def write_png(picture: Picture, path: Path, key: str, about: dict[str, Any]) -> None:
    """Write a picture with a text chunk of JSON and its µm per pixel."""
    height, width = picture.shape
    with path.open("wb") as file:
        file.write(SIGNATURE)
        _chunk(file, b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
        if picture.mpp is not None:
            y, x = (round(METRE / side) for side in picture.mpp)
            _chunk(file, b"pHYs", struct.pack(">2IB", x, y, 1))
        _chunk(file, b"tEXt", key.encode() + b"\0" + json.dumps(about).encode())
        press = zlib.compressobj(LEVEL)
        for _, rows in picture.bands():
            _chunk(file, b"IDAT", press.compress(_filtered(rows)))
        _chunk(file, b"IDAT", press.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data)
    file.write(struct.pack(">I", zlib.crc32(kind + data)))


def _filtered(rows: Rgb) -> bytes:
    flat = rows.reshape(len(rows), -1)
    lines = np.empty((len(rows), 1 + flat.shape[1]), np.uint8)
    lines[:, 0] = DIFFERENCES
    lines[:, 1:4] = flat[:, :3]
    lines[:, 4:] = flat[:, 3:] - flat[:, :-3]
    return lines.tobytes()
