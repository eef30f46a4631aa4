"""What was written for a slide, and from what: a later run continues by content, not by names.

A step is up to date if what decides it is the same and its files hold the same bytes as when they
were written. Files of an earlier run that belong to it no more are removed, unless somebody has
changed them; so are those under another label, which the slide had then.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.exports.target import written_at_once
from napari_wsi_heatmap.mil.featuresources import file_sha256
from napari_wsi_heatmap.runfolder import ENDING, is_store, writing

if TYPE_CHECKING:
    from pathlib import Path

    from napari_wsi_heatmap.mil.experiment import Experiment, SlidePaths

VERSION = 1
"""Of what is written, and how: another one makes everything anew."""


def key_of(decisive: dict[str, Any]) -> str:
    """Hash what decides a step, as plain values."""
    text = json.dumps({"version": VERSION, **decisive}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class SlideRecord:
    """The steps of one slide: name -> key, files and what else is to be known.

    Parameters
    ----------
    paths : SlidePaths
    steps : dict
    """

    paths: SlidePaths
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: SlidePaths) -> SlideRecord:
        """Read what there is; a record that cannot be read is as good as none."""
        try:
            found = json.loads(paths.record.read_text(encoding="utf-8"))
            steps = found["steps"] if found["version"] == VERSION else {}
            known = {name: step for name, step in steps.items() if _is_step(step)}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            known = {}
        return cls(paths, known)

    def current(self, step: str, key: str) -> bool:
        """Whether a step was done with the same decisions, and its files are as it left them."""
        found = self.steps.get(step)
        return (
            found is not None
            and found["key"] == key
            and all(map(self._same, found["files"].items()))
        )

    def done(self, step: str, key: str, files: list[Path], **more: Any) -> None:
        """Say that a step is done, and remove what only its earlier run has left."""
        made = {self._name(path): file_sha256(path) for path in files}
        before = self.steps.get(step, {"files": {}})["files"]
        for name, digest in before.items():
            if name not in made and self._same((name, digest)):
                self._remove(self._path(name))
        self.steps[step] = {"key": key, "files": made, **more}
        self._write()

    def forget(self) -> None:
        """Remove what all steps have left and nobody has changed, and this record last."""
        for step in self.steps.values():
            for file in filter(self._same, step["files"].items()):
                self._remove(self._path(file[0]))
        self._remove(self.paths.record)

    def _remove(self, path: Path) -> None:
        """Remove a file, and folders that are empty now."""
        path.unlink()
        homes = (self._experiment.raw, self._experiment.production)
        with suppress(OSError):  # a folder that is not empty
            for folder in path.parents:
                if folder in homes:
                    break
                folder.rmdir()

    def _write(self) -> None:
        text = json.dumps({"version": VERSION, "steps": self.steps}, indent=1, allow_nan=False)
        with written_at_once(self.paths.record) as part:
            part.write_text(text + "\n", encoding="utf-8")

    def _same(self, file: tuple[str, str]) -> bool:
        path = self._path(file[0])
        return path.is_file() and file_sha256(path) == file[1]

    @property
    def _experiment(self) -> Experiment:
        return self.paths.experiment

    def _name(self, path: Path) -> str:
        for root, home in (
            ("raw", self._experiment.raw),
            ("production", self._experiment.production),
        ):
            if path.is_relative_to(home):
                return f"{root}/{path.relative_to(home).as_posix()}"
        raise ValueError(f"{path} is in neither folder")

    def _path(self, name: str) -> Path:
        root, _, rest = name.partition("/")
        home = {"raw": self._experiment.raw, "production": self._experiment.production}[root]
        return home / rest


def leave_other_labels(paths: SlidePaths) -> None:
    """Remove what a slide's runs under another label have left; features that were made move here.

    Raises
    ------
    StoreFullError
        If that is not allowed.
    """
    raw = paths.experiment.raw
    with writing(raw):
        for folder in sorted(raw.iterdir()) if raw.is_dir() else []:
            other = paths.experiment.slide(folder.name, paths.slide_id)
            record = SlideRecord.of(other)
            if folder.name != paths.label and record.steps:
                _move_features(other, paths)
                record.forget()


def _move_features(old: SlidePaths, new: SlidePaths) -> None:
    for store in sorted(old.folder.iterdir()):
        if store.name.endswith(ENDING) and is_store(store):
            new.folder.mkdir(parents=True, exist_ok=True)
            if not (new.folder / store.name).exists():
                os.replace(store, new.folder / store.name)


def _is_step(step: Any) -> bool:
    return (
        isinstance(step, dict)
        and isinstance(step.get("key"), str)
        and isinstance(step.get("files"), dict)
        and all(
            isinstance(digest, str)
            and name.partition("/")[0] in ("raw", "production")
            and not {"", "..", "."} & set(name.split("/"))
            for name, digest in step["files"].items()
        )
    )
