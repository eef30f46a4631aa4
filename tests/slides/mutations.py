"""Small slides of many codecs, and damages to them that repeat: the same seed, the same file."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tifffile

from made_slides import APERIO, noise, tissue, write_tiff

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIDE, TILE = 256, 64
VALUES = (0, 1, 2, 15, 16, 255, 4096, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
WIDE_VALUES = (*VALUES, 2**32, 2**40, 2**61, 2**63 - 1, 2**63, 2**64 - 1)
PHILIPS = (
    '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
    '<Attribute Name="DICOM_MANUFACTURER" Group="0x0008" Element="0x0070" PMSVR="IString">'
    'PHILIPS</Attribute><Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003"'
    ' PMSVR="IDataObjectArray"><Array><DataObject ObjectType="DPScannedImage">'
    '<Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI'
    '</Attribute><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001"'
    ' Element="0x8B01" PMSVR="IDataObjectArray"><Array>{levels}</Array></Attribute></DataObject>'
    "</Array></Attribute></DataObject>"
)
PHILIPS_LEVEL = (
    '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING"'
    ' Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">&quot;{mm}&quot; &quot;{mm}&quot;'
    '</Attribute><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER" Group="0x1001"'
    ' Element="0x8B02" PMSVR="IUInt16">{level}</Attribute></DataObject>'
)

VENTANA = (
    '<?xml version="1.0"?><EncodeInfo Ver="2"><SlideInfo/><SlideStitchInfo><ImageInfo'
    f' AOIScanned="1" AOIIndex="0" Width="{TILE}" Height="{TILE}" NumRows="4" NumCols="4"'
    ' Pos-X="0" Pos-Y="0">{joints}</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="0"'
    ' OriginY="0"/></AoiOrigin></EncodeInfo>'
)
VENTANA_JOINT = (
    '<TileJointInfo FlagJoined="1" Confidence="100" Direction="{}" Tile1="{}" Tile2="{}"'
    ' OverlapX="0" OverlapY="0"/>'
)
ISCAN = '<?xml version="1.0"?><iScan Magnification="20" ScanRes="0.5" UnitNumber="0"/>'


class Base(NamedTuple):
    """A healthy slide, and where its header can be hurt."""

    raw: bytes
    suffix: str
    entries: tuple[int, ...]
    """Positions of all its tag entries."""
    tables: tuple[tuple[int, int, int], ...]
    """(position, count, bytes of one) of the values of tags that do not fit in their entry."""
    big: bool


def _levels(make: Callable[..., np.ndarray] = tissue) -> list[np.ndarray]:
    return [make(SIDE, SIDE), make(SIDE // 2, SIDE // 2)]


def _aperio(path: Path, *, compression: str | int, big: bool = False) -> None:
    texts = [APERIO.format(w=SIDE, h=SIDE, more="|AppMag = 20|MPP = 0.5"), "Aperio -> 128x128"]
    with tifffile.TiffWriter(path, bigtiff=big) as tiff:
        for level, text in zip(_levels(), texts, strict=True):
            _write(tiff, level, compression, description=text)
        label = {"description": "Aperio label 40x50", "metadata": None}
        tiff.write(tissue(40, 50), photometric="rgb", compression="lzw", subfiletype=1, **label)


def _write(tiff: tifffile.TiffWriter, level: np.ndarray, compression: str | int, **more) -> None:
    options = {"tile": (TILE, TILE), "compression": compression, "metadata": None} | more
    tiff.write(level, photometric="ycbcr" if compression == "jpeg" else "rgb", **options)


def _generic(path: Path, compression: str | None, *, big: bool = False, predictor=None) -> None:
    with tifffile.TiffWriter(path, bigtiff=big) as tiff:
        for index, level in enumerate(_levels()):
            _write(tiff, level, compression, subfiletype=min(index, 1), predictor=predictor)


def _philips(path: Path) -> None:
    levels = "".join(PHILIPS_LEVEL.format(mm=0.0005 * 2**i, level=i) for i in range(2))
    texts = [PHILIPS.format(levels=levels), "level=1 mag=10 quality=80"]
    with tifffile.TiffWriter(path) as tiff:
        for index, (level, text) in enumerate(zip(_levels(), texts, strict=True)):
            more = {"description": text, "software": "Philips DP v1.0", "subfiletype": index}
            _write(tiff, level, "zlib", **more)


def _ome(path: Path) -> None:
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options = {"tile": (TILE, TILE), "compression": "zlib", "photometric": "rgb"}
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "axes": "YXS"}
        tiff.write(_levels()[0], subifds=1, metadata=size, **options)
        tiff.write(_levels()[1], subfiletype=1, **options)


def _ventana(path: Path) -> None:
    def number(row: int, column: int) -> int:  # from 1 on, from the bottom up, to and fro
        up = 3 - row
        return up * 4 + ((3 - column) if up % 2 else column) + 1

    places = [(row, column) for row in range(4) for column in range(4)]
    right = [("RIGHT", number(r, c), number(r, c + 1)) for r, c in places if c < 3]
    up = [("UP", number(r + 1, c), number(r, c)) for r, c in places if r < 3]
    joints = "".join(VENTANA_JOINT.format(*joint) for joint in right + up)
    label = {"photometric": "rgb", "compression": "lzw", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for text, xml in (("Label Image", ISCAN), ("Thumbnail", None)):
            tags = [(700, 7, len(xml), xml.encode(), True)] if xml else []
            tiff.write(tissue(40, 50), description=text, extratags=tags, **label)
        xml = VENTANA.format(joints=joints).encode()
        for index, level in enumerate(_levels()):
            more = {"extratags": [(700, 7, len(xml), xml, True)]} if index == 0 else {}
            text = f"level={index} mag={20 / 2**index:g} quality=90"
            _write(tiff, level, "jpeg", description=text, subfiletype=min(index, 1), **more)


def _zlib(path: Path) -> None:
    write_tiff(path, _levels(noise), tile=TILE, mpp=None, compression="zlib")


MAKERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "zlib": (".tif", _zlib),
    "jpeg, Aperio": (".svs", lambda path: _aperio(path, compression="jpeg")),
    "lzw": (".tif", lambda path: _generic(path, "lzw")),
    "JPEG 2000, Aperio": (".svs", lambda path: _aperio(path, compression=33005)),
    "zlib, Philips": (".tiff", _philips),
    "zstd": (".tif", lambda path: _generic(path, "zstd")),
    "zlib, predictor": (".tif", lambda path: _generic(path, "zlib", predictor=True)),
    "zlib, OME SubIFD": (".ome.tif", _ome),
    "jpeg, Aperio, BigTIFF": (".svs", lambda path: _aperio(path, compression="jpeg", big=True)),
    "jpeg, Ventana": (".bif", _ventana),
    "uncompressed, BigTIFF": (".tif", lambda path: _generic(path, None, big=True)),
}
"""By name: the ending of its file, and what writes it."""


def make_base(name: str, folder: Path) -> Base:
    """Write a healthy slide and look up its tag entries."""
    suffix, write = MAKERS[name]
    path = folder / f"base{suffix}"
    write(path)
    with tifffile.TiffFile(path) as tiff:
        pages = [page for main in tiff.pages for page in (main, *(main.pages or ()))]
        tags = [tag for page in pages for tag in page.tags]
        entries = tuple(tag.offset for tag in tags)
        tables = tuple((t.valueoffset, t.count, t.valuebytecount // t.count) for t in tags)
        word = 8 if tiff.is_bigtiff else 4
        long = tuple(table for table in tables if table[1] * table[2] > word)
        return Base(path.read_bytes(), suffix, entries, long, tiff.is_bigtiff)


def mutated(name: str, base: Base, seed: int) -> bytes:
    """Return the slide with 1 to 4 things changed, always the same for a name and a seed.

    Of the changes 60 % fall on a tag entry (value, count, type or number of the tag), 15 % on a
    number in a long tag (the tables of tiles, the description), 15 % on any byte; 10 % cut the
    end off.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    raw = bytearray(base.raw)
    for _ in range(rng.integers(1, 5)):
        what = rng.random()
        entries = [at for at in base.entries if at + 20 <= len(raw)]
        tables = [table for table in base.tables if table[0] + table[1] * table[2] <= len(raw)]
        if what < 0.6 and entries:
            _patch_entry(raw, int(rng.choice(entries)), base.big, rng)
        elif what < 0.75 and tables:
            _patch_table(raw, *tables[rng.integers(len(tables))], rng)
        elif what < 0.9:
            raw[rng.integers(len(raw))] = rng.integers(256)
        else:
            del raw[int(rng.integers(min(8, len(raw) - 1), len(raw))) :]
    return bytes(raw)


def _patch_table(
    raw: bytearray, place: int, count: int, size: int, rng: np.random.Generator
) -> None:
    at = place + size * int(rng.integers(count))
    raw[at : at + size] = (_value(size, rng) % 256**size).to_bytes(size, "little")


def _value(size: int, rng: np.random.Generator) -> int:
    values = WIDE_VALUES if size == 8 else VALUES
    if rng.random() < 0.7:
        return values[rng.integers(len(values))]
    return int.from_bytes(rng.bytes(size), "little")


def _patch_entry(raw: bytearray, at: int, big: bool, rng: np.random.Generator) -> None:
    word = 8 if big else 4
    parts = ((4 + word, word), (4, word), (2, 2), (0, 2))
    part, size = parts[rng.choice(4, p=(0.7, 0.15, 0.1, 0.05))]
    raw[at + part : at + part + size] = (_value(size, rng) % 256**size).to_bytes(size, "little")
    if part == 4 + word and rng.random() < 0.5:
        # Else a value of a long tag is only ever a place, and hardly ever a number.
        raw[at + 2 : at + 4 + word] = struct.pack("<HQ" if big else "<HI", 16 if big else 4, 1)


def tile_place(path: Path, index: int) -> tuple[int, int]:
    """(position, length) of the bytes of a tile of level 0."""
    with tifffile.TiffFile(path) as tiff:
        return tiff.pages[0].dataoffsets[index], tiff.pages[0].databytecounts[index]


def damage_tile(path: Path, index: int, how: str) -> None:
    """Damage a tile's bytes: "smashed" start, "zeroed", "cut" in half, "noise" in its end."""
    at, length = tile_place(path, index)
    with path.open("r+b") as file:
        file.seek(at)
        tile = file.read(length)
        file.seek(at)
        file.write(_damaged(tile, how))


def _damaged(tile: bytes, how: str) -> bytes:
    half = len(tile) // 2
    return {
        "smashed": bytes(16) + tile[16:],
        "zeroed": bytes(len(tile)),
        "cut": tile[:half] + bytes(len(tile) - half),
        "noise": tile[:half] + np.random.default_rng(5).bytes(len(tile) - half),
    }[how]


def flip_bits(path: Path, index: int, seed: int) -> None:
    """Flip 1 to 3 bits of a tile, and sometimes replace a byte near its start."""
    at, length = tile_place(path, index)
    rng = np.random.default_rng(seed)
    raw = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
        raw[at + int(rng.integers(length))] ^= 1 << int(rng.integers(8))
    if seed % 5 == 0:
        raw[at + int(rng.integers(min(length, 300)))] = int(rng.integers(256))
    path.write_bytes(raw)
