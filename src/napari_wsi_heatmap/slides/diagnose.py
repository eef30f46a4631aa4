"""Why a file is not a slide, in words that say what to do.

OpenSlide answers a missing file, a folder, a failed download and a truncated slide with one and
the same text. Here the true cause is looked for, the cheap and certain ones first. Nothing is
opened that is not a regular file: a FIFO would hang, /dev/zero never end.
"""

from __future__ import annotations

import errno
import os
import stat

from napari_wsi_heatmap.slides import tiffheader, tifftables

HEAD = 512
"""Bytes that are enough to tell what kind of file it is."""

_DOWNLOAD_AGAIN = "download or copy it again"
_ZIPPED = (
    *((b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"), (b"BZh", "bzip2")),
    *((b"\xfd7zXZ", "xz"), (b"7z\xbc\xaf", "7-zip"), (b"\x28\xb5\x2f\xfd", "zstd")),
)
_PICTURES = ((b"\x89PNG", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF8", "GIF"), (b"BM", "BMP"))


def why_not_a_slide(path: str) -> str | None:
    """Find the cause why `path` does not open as a slide.

    Parameters
    ----------
    path : str
        Any path; it need not exist.

    Returns
    -------
    str or None
        One line: the cause, and what to do; None if nothing was found to be wrong.
    """
    return obvious_cause(path) or _mirax_cause(path) or _tiff_cause(path)


def obvious_cause(path: str) -> str | None:
    """Find causes that need no more than `stat` and the first bytes; the rest like above."""
    if "://" in path and not os.path.lexists(path):
        return "this is a web address - download the slide and open the file"
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return _unreachable(path, error)
    return _not_regular(path, status.st_mode) or _head_cause(path, status.st_size)


def read_head(path: str) -> bytes:
    """Return the first bytes of a regular file."""
    with open(path, "rb") as file:
        return file.read(HEAD)


def plausible(path: str, head: bytes) -> bool:
    """Tell from name and first bytes whether a file can be a slide at all."""
    return bool(head) and (_is_mirax(path, head) or _no_slide(head) is None)


def is_picture(path: str) -> bool:
    """Tell whether a path is a file that begins like a PNG or JPEG."""
    try:
        return os.path.isfile(path) and read_head(path).startswith((b"\x89PNG", b"\xff\xd8\xff"))
    except OSError:
        return False


def _unreachable(path: str, error: OSError | ValueError) -> str:
    if isinstance(error, PermissionError):
        return "no permission to look into its folder - ask its owner, or copy the slide"
    if getattr(error, "errno", None) == errno.ELOOP:
        return "a link that leads in a circle - open the file itself"
    if os.path.islink(path):
        return "a link that leads nowhere - its target was moved or is not mounted"
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return "no such file - check the path, or whether the drive is mounted"
    return f"the file cannot be reached: {getattr(error, 'strerror', None) or error}"


def _not_regular(path: str, mode: int) -> str | None:
    if stat.S_ISREG(mode):
        return None
    if not stat.S_ISDIR(mode):
        return "not a regular file (a pipe, socket or device) - open a slide file"
    if os.path.isfile(path.rstrip("/\\") + ".mrxs"):
        return "the data folder of a MRXS slide - open the .mrxs file beside it"
    return "a folder - open a slide file in it"


def _head_cause(path: str, size: int) -> str | None:
    if size == 0:
        return f"the file is empty - {_DOWNLOAD_AGAIN}"
    try:
        head = read_head(path)
    except PermissionError:
        return "no permission to read the file - ask its owner, or change its mode"
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    # A .mrxs file is itself a JPEG; its pixels lie in the folder of the same name.
    return None if _is_mirax(path, head) else _no_slide(head)


def _no_slide(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the slide itself - run: git lfs pull"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")):
        return f"an HTML or XML page, as a failed download leaves it - {_DOWNLOAD_AGAIN}"
    for magic, name in _ZIPPED:
        if head.startswith(magic):
            return f"a {name} archive - unpack it first"
    for magic, name in _PICTURES:
        if head.startswith(magic):
            return f"an ordinary {name} picture, not a slide - open it with napari itself"
    return None


def _is_mirax(path: str, head: bytes) -> bool:
    return path.lower().endswith(".mrxs") and not tiffheader.is_tiff(head)


def _mirax_cause(path: str) -> str | None:
    if not _is_mirax(path, read_head(path)):
        return None
    folder = os.path.splitext(path)[0]
    name = os.path.basename(folder)
    if not os.path.isdir(folder):
        return f"the folder {name!r} that belongs beside a .mrxs file is missing - copy it too"
    index = os.path.join(folder, "Slidedat.ini")
    if not os.path.isfile(index) or os.path.getsize(index) == 0:
        return f"{name}/Slidedat.ini is missing or empty - copy the folder again"
    if not os.path.isfile(os.path.join(folder, "Index.dat")):
        return f"{name}/Index.dat is missing - copy the folder again"
    return None


def _tiff_cause(path: str) -> str | None:
    head = read_head(path)
    if not tiffheader.is_tiff(head):
        return None
    try:
        found = tiffheader.directories(path)
        beyond = [tifftables.tiles_beyond_end(path, d) for d in found if d.tiled]
    except tiffheader.BadTiff as error:
        return bad_tiff(error)
    lost, listed = (sum(counts) for counts in zip(*beyond, strict=True)) if beyond else (0, 0)
    if lost:
        return (
            f"cut off or damaged: {lost} of {listed} tiles lie beyond its end - {_DOWNLOAD_AGAIN}"
        )
    if not beyond and all(tiffheader.NDPI_FORMAT not in d.entries for d in found):
        return "a striped TIFF - convert it to a tiled pyramid (vips tiffsave --tile --pyramid)"
    return None


def bad_tiff(error: tiffheader.BadTiff) -> str:
    """Turn a fault of the headers into a line for the user."""
    return f"{'cut off' if error.cut_off else 'damaged'}: {error} - {_DOWNLOAD_AGAIN}"
