"""The process that runs cuCIM: it reads boxes of one slide, and answers one request at a time.

Run as a script by `cucim_worker`, never imported by it. It imports nothing of this package.

cuCIM (26.10) returns whatever lay in its buffers for a tile that it could not decode, and
only prints a line; for a tile that holds fewer pixels than it should, not even that. So here
everything printed while a box is read is an error of that box, and each tile is checked before
it is decoded for the first time.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import struct
import sys
import zlib
from typing import Any

REQUEST = struct.Struct("<5q")
"""level, y, x, height, width: pixels of that level."""
REPLY = struct.Struct("<qq")
"""(0 for success, 1 for an error; length of the text that follows)."""
MEMORY = 16 << 30
"""Bytes of address space, where no GPU driver needs more."""

JPEG = 7
DEFLATE = (8, 32946)
_NO_FRAME = (0xC4, 0xC8, 0xCC)
"""Markers between 0xFFC0 and 0xFFCF that start no frame."""
_ALONE = (0xD8, 0x01)
"""Markers without a length."""


def level0(position: int, downsample: float) -> int:
    """Level-0 position that cuCIM takes for `position` of a level.

    cuCIM divides by its 32-bit downsample and drops the fraction. The integer nearest to the
    middle of the pixel is as far as can be from where the rounding of that quotient matters.
    """
    return math.ceil(position * downsample + (downsample - 1) / 2)


def jpeg_frame(data: bytes) -> tuple[int, int, int, int] | None:
    """(bits, height, width, components) of a JPEG as its frame header says; None without one."""
    at = 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _ALONE or marker == 0xFF:
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            frame = data[at + 4 : at + 10]
            return struct.unpack(">BHHB", frame) if len(frame) == 6 else None
        if marker == 0xDA:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def tile_fault(data: bytes, compression: int, tile: tuple[int, int]) -> str | None:
    """Say why the bytes of a tile do not hold (height, width) RGB pixels, as far as cuCIM may not.

    Deflated tiles are inflated for that, which costs as much as reading them.
    """
    expected = tile[0] * tile[1] * 3
    if compression == JPEG:
        frame = jpeg_frame(data)
        if frame != (8, *tile, 3):
            return f"a JPEG tile whose header says {frame}, not 8 bit, {tile}, 3 components"
    elif compression in DEFLATE:
        return _deflate_fault(data, expected)
    elif compression == 1 and len(data) != expected:
        return f"a tile of {len(data)} bytes instead of {expected}"
    return None


def _deflate_fault(data: bytes, expected: int) -> str | None:
    try:
        got = len(zlib.decompressobj().decompress(data, expected + 1))
    except zlib.error as error:
        return f"a tile that cannot be inflated: {error}"
    return None if got == expected else f"a tile of {got} bytes instead of {expected}"


class Tiles:
    """The tiles of one level: where their bytes lie, and which were checked.

    Parameters
    ----------
    level : dict
        As `cucim._layout` describes it.
    path : str
        The slide.
    """

    def __init__(self, level: dict[str, Any], path: str) -> None:
        import numpy as np

        self.tile: tuple[int, int] = (level["tile"][0], level["tile"][1])
        self.across: int = level["across"]
        self.compression: int = level["compression"]
        self._offsets, self._counts = (
            np.fromfile(path, dtype, count, offset=place)
            for dtype, count, place in (level["offsets"], level["counts"])
        )
        self._checked = np.zeros(len(self._counts), bool)

    def check(self, file: int, y: int, x: int, height: int, width: int) -> None:
        """Raise ValueError for a tile of the box that must not be shown."""
        for row in range(y // self.tile[0], (y + height - 1) // self.tile[0] + 1):
            first = row * self.across
            for index in range(
                first + x // self.tile[1], first + (x + width - 1) // self.tile[1] + 1
            ):
                if not self._checked[index]:
                    self._check_one(file, index)

    def _check_one(self, file: int, index: int) -> None:
        count = int(self._counts[index])
        if count:  # else it was not scanned: masked by whoever asked
            data = os.pread(file, count, int(self._offsets[index]))
            short = f"{count - len(data)} of its bytes lie beyond the end of the file"
            fault = tile_fault(data, self.compression, self.tile) if len(data) == count else short
            if fault:
                raise ValueError(f"tile {index}: {fault}")
        self._checked[index] = True


class Log:
    """What C libraries print into this process's standard output and error."""

    def __init__(self) -> None:
        self._file = os.memfd_create("printed")
        self._flush = ctypes.CDLL(None).fflush
        os.dup2(self._file, 1)
        os.dup2(self._file, 2)

    def take(self) -> str:
        """Return and forget what was printed since."""
        self._flush(None)
        length = os.lseek(self._file, 0, os.SEEK_CUR)
        if not length:
            return ""
        text = os.pread(self._file, min(length, 4096), 0).decode("utf-8", "replace")
        os.lseek(self._file, 0, os.SEEK_SET)
        os.ftruncate(self._file, 0)
        return text or "it printed something"


class Reader:
    """An opened slide, and the memory that is shared with the process that asks."""

    def __init__(self, job: dict[str, Any], log: Log) -> None:
        import cucim
        from cucim.clara import CuImage

        self.version = str(getattr(cucim, "__version__", ""))
        CuImage.cache("nocache")  # no setting of the user's: a cache would keep broken tiles
        self.image = CuImage(job["path"])
        self.file = os.open(job["path"], os.O_RDONLY)
        self.device, self.pixels, self.log = job["device"], job["pixels"], log
        self.levels = [Tiles(level, job["path"]) for level in job["levels"]]
        self.shared: mmap.mmap | None = None
        log.take()

    def describe(self) -> str:
        """Levels as cuCIM sees them, as JSON."""
        found = self.image.resolutions
        shapes = [(height, width) for width, height in found["level_dimensions"]]
        downsamples = list(found["level_downsamples"])
        return json.dumps({"shapes": shapes, "downsamples": downsamples, "version": self.version})

    def read(self, level: int, y: int, x: int, height: int, width: int) -> None:
        """Put the pixels of a box where the other process finds them."""
        import numpy as np

        self.levels[level].check(self.file, y, x, height, width)
        down = self.image.resolutions["level_downsamples"][level]
        region = self.image.read_region(
            (level0(x, down), level0(y, down)), (width, height), level, device=self.device
        )
        got = _on_host(region)
        printed = self.log.take()
        if printed:
            raise ValueError(printed)
        if got.shape != (height, width, 3) or got.dtype != np.uint8:
            raise ValueError(f"it returns {got.dtype} {got.shape}")
        np.frombuffer(self._share(got.nbytes), np.uint8, got.nbytes)[:] = got.ravel()

    def _share(self, size: int) -> mmap.mmap:
        if self.shared is None or len(self.shared) < size:
            self.shared = mmap.mmap(self.pixels, os.fstat(self.pixels).st_size)
        return self.shared


def _on_host(region: Any) -> Any:
    import numpy as np

    if not hasattr(region, "__cuda_array_interface__"):
        return np.asarray(region)
    try:
        import cupy
    except ImportError:
        import torch

        return torch.as_tensor(region, device="cuda").cpu().numpy()
    return cupy.asnumpy(cupy.asarray(region))


def _limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _answer(out: int, code: int, text: str) -> None:
    raw = text.encode("utf-8", "replace")
    os.write(out, REPLY.pack(code, len(raw)) + raw)


def main() -> None:
    """Open the slide, say what it is, and answer requests until the other side is gone."""
    job = json.loads(sys.argv[1])
    sys.path[:] = job["import_path"]
    if job["device"] == "cpu":
        _limit_memory()
    out = os.dup(1)
    log = Log()
    try:
        reader = Reader(job, log)
        _answer(out, 0, reader.describe())
    except Exception as error:  # noqa: BLE001 - all that goes wrong is told
        _answer(out, 1, str(error))
        os._exit(1)
    while len(request := os.read(0, REQUEST.size)) == REQUEST.size:
        try:
            reader.read(*REQUEST.unpack(request))
            _answer(out, 0, "")
        except Exception as error:  # noqa: BLE001
            _answer(out, 1, str(error) or type(error).__name__)
    os._exit(0)


if __name__ == "__main__":
    main()
