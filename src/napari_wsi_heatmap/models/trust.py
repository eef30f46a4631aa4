"""Consent to models that are code: TorchScript and torch.export files can do whatever they like.

A kind of model that is code loads a file in one way only::

    code = read_code(path, "TorchScript", trust)      # UntrustedModelError without consent
    module = torch.jit.load(io.BytesIO(code.content))

What is loaded are the very bytes that were hashed, so nobody can exchange the file in between.
Consent is given by ``trust=<sha256>``, by ``trust=True``, or was given before: it is remembered by
the sha256, never by a name, as one small file each in the user's configuration folder. Deleting
that file takes it back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_wsi_heatmap.errors import ModelLoadError, UntrustedModelError
from napari_wsi_heatmap.models.opened import opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    Trust = str | bool | Sequence[str] | None

CHUNK = 1 << 20
"""Bytes that are hashed at once."""
_SHA256 = re.compile(r"[0-9a-f]{64}")

_unsaved: set[str] = set()
"""Consent whose file could not be written: it holds for this process."""


@dataclass(frozen=True)
class Code:
    """A file that its user trusts, as it was when it was hashed."""

    path: Path
    content: bytes
    sha256: str


def read_code(path: Path, kind: str, trust: Trust = None) -> Code:
    """Read a file that is code, if there is consent to it.

    Parameters
    ----------
    path : Path
    kind : str
        What it is, for people: "TorchScript".
    trust : str, sequence of str or bool, optional
        sha256 of the files that may be loaded; True: whatever it is; False: not even one that was
        agreed to before; None: only such a one.

    Returns
    -------
    Code
        Load `content`, never the file again.

    Raises
    ------
    UntrustedModelError
        Without consent; names path and sha256. Only the hash was taken then.
    ModelLoadError
        If the file cannot be read, or `trust` is no sha256.

    Notes
    -----
    Memory bound: the size of the file, once there is consent; before that, 1 MB.
    """
    with opened(path) as file:
        if trust is not True:
            require_trust(path, _sha256_of(file), kind, trust)
        content = _content(path, file)
    sha256 = hashlib.sha256(content).hexdigest()
    require_trust(path, sha256, kind, trust)
    if trust:
        remember(sha256, path)
    return Code(path, content, sha256)


def require_trust(path: Path, sha256: str, kind: str, trust: Trust = None) -> None:
    """Raise UntrustedModelError unless there is consent to the file of that sha256."""
    if trust is True:
        return
    given = _given(trust)
    if given and sha256 not in given:
        what = f"the sha256 of this {kind} file is {sha256}, not the one that you trust"
        raise UntrustedModelError(what, path, "make sure that it is the right file", sha256, kind)
    if not given and (trust is False or not is_trusted(sha256)):
        what = f"{kind} is code, which can do anything that you can; sha256 {sha256}"
        do = "if you trust who made it, give that sha256 as trust= (command line: --trust)"
        raise UntrustedModelError(what, path, do, sha256, kind)


def is_trusted(sha256: str) -> bool:
    """Whether consent to the file of that sha256 was given before."""
    if not _SHA256.fullmatch(sha256):
        return False
    try:
        return sha256 in _unsaved or (folder() / sha256).is_file()
    except OSError:
        return False


def remember(sha256: str, path: Path) -> None:
    """Keep consent to the file of that sha256; the path is only for people who look."""
    target = folder() / sha256
    if is_trusted(sha256):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, f"{path}\n")
    except OSError:
        _unsaved.add(sha256)


def forget(sha256: str) -> None:
    """Take consent back."""
    _unsaved.discard(sha256)
    with contextlib.suppress(OSError):
        (folder() / sha256).unlink()


def folder() -> Path:
    """Folder of the user's that holds one file for each sha256 agreed to."""
    import platformdirs

    return platformdirs.user_config_path("napari-wsi-heatmap") / "trusted-models"


def _given(trust: Trust) -> set[str]:
    """The sha256 that are trusted, in lower case."""
    if trust is None or isinstance(trust, bool):
        return set()
    given = {str(one).lower() for one in ([trust] if isinstance(trust, str) else trust)}
    for one in given:
        if not _SHA256.fullmatch(one):
            raise ModelLoadError(f"trust={one!r}", do="it must be a sha256, or True")
    return given


def _content(path: Path, file: BinaryIO) -> bytes:
    file.seek(0)
    try:
        return file.read()
    except MemoryError:
        raise ModelLoadError("the model file does not fit into memory", path) from None


def _sha256_of(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _write(target: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".")
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)
    os.replace(temporary, target)
