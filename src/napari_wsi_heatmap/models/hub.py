"""Files of a Hugging Face repository, at exactly one revision.

The user's cache is read as huggingface-hub lays it out, so that what lies there needs neither
that package nor a network; what does not is fetched by it, and only if the revision is pinned.
Code in a repository is never run.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from napari_wsi_heatmap.errors import ModelLoadError, one_line

SCHEME: Final = "hf://"
SPEC: Final = re.compile(
    r"hf://(?P<owner>[\w-][\w.-]*)/(?P<name>[\w-][\w.-]*)(?:@(?P<revision>.*))?"
)
PINNED: Final = re.compile(r"[0-9a-f]{40}")
HOW: Final = "pin it: hf://owner/name@ and the 40 hexadecimal digits of a commit"


def is_hub(spec: Any) -> bool:
    """Whether a model is asked for by a repository's address."""
    return isinstance(spec, str) and spec.startswith(SCHEME)


@dataclass(frozen=True)
class HubRepository:
    """A repository at one commit.

    Attributes
    ----------
    owner, name : str
    revision : str
        40 hexadecimal digits.
    """

    owner: str
    name: str
    revision: str

    @classmethod
    def of(cls, spec: str) -> HubRepository:
        """Read ``hf://owner/name@revision``.

        Raises
        ------
        ModelLoadError
            If it is something else, or the revision is a branch, a tag, shortened or missing: what
            these point to can change.
        """
        found = SPEC.fullmatch(spec)
        if found is None:
            raise ModelLoadError("no address of a Hugging Face repository", spec, HOW)
        if not PINNED.fullmatch(found["revision"] or ""):
            raise ModelLoadError("the revision of the repository is not pinned", spec, HOW)
        return cls(found["owner"], found["name"], found["revision"])

    @classmethod
    def in_cache(cls, owner: str, name: str) -> HubRepository | None:
        """Return the repository as it lies in the user's cache; None if it does not.

        Raises
        ------
        ModelLoadError
            If several revisions lie there, and none is the one last asked for by its branch.
        """
        folder = _folder(owner, name)
        main = folder / "refs" / "main"
        if main.is_file() and PINNED.fullmatch(revision := main.read_text().strip()):
            return cls(owner, name, revision)
        revisions = sorted(path.name for path in folder.glob("snapshots/*") if path.is_dir())
        if len(revisions) > 1:
            raise ModelLoadError(
                "several revisions are in the cache",
                f"{SCHEME}{owner}/{name}",
                f"choose one by weights='{SCHEME}{owner}/{name}@{revisions[0]}'",
            )
        return cls(owner, name, revisions[0]) if revisions else None

    def __str__(self) -> str:
        return f"{SCHEME}{self.owner}/{self.name}@{self.revision}"

    def cached(self, filename: str) -> Path | None:
        """Path of a file in the user's cache; None if it is not there."""
        path = _folder(self.owner, self.name) / "snapshots" / self.revision / filename
        return path if path.is_file() else None

    def fetched(self, filename: str) -> Path:
        """Path of a file, downloaded to the user's cache if it is not there.

        Raises
        ------
        ModelLoadError
            If it is not there and cannot be had.
        """
        return self.cached(filename) or self._download(filename)

    def _download(self, filename: str) -> Path:
        try:
            from huggingface_hub import hf_hub_download
        except ImportError as error:
            raise ModelLoadError(
                f"{filename} is not in the cache, and huggingface-hub, which would fetch it, "
                f"cannot be imported ({one_line(error, 80)})",
                self,
                "pip install 'napari-wsi-heatmap[encoders]', or download it and give its path",
            ) from error
        try:
            path = hf_hub_download(f"{self.owner}/{self.name}", filename, revision=self.revision)
        except Exception as error:  # its errors are of several packages, by version
            raise ModelLoadError(
                f"{filename} cannot be downloaded: {one_line(error, 160)}",
                self,
                "look whether it is there, and whether you must accept a licence and log in",
            ) from error
        return Path(path)


def cache_folder() -> Path:
    """Folder in which huggingface-hub keeps repositories."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    return Path(home).expanduser() / "hub"


def _folder(owner: str, name: str) -> Path:
    """Folder of a repository; Hugging Face takes its name in any case, and so do we."""
    cache, wanted = cache_folder(), f"models--{owner}--{name}"
    if not (cache / wanted).is_dir():
        for found in sorted(cache.glob("models--*")):
            if found.name.lower() == wanted.lower():
                return found
    return cache / wanted
