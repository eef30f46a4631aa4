"""A configuration of the MIL pipeline: read, checked against the table of keys, paths found."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from napari_wsi_heatmap.mil.configkeys import ENCODER, SAMPLE_KEYS, SECTIONS
from napari_wsi_heatmap.mil.configkinds import WrongValueError
from napari_wsi_heatmap.mil.yamlfile import ConfigError, parse, read_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_wsi_heatmap.mil.configkeys import Key, Section

    Values = Mapping[str, Any]

SHOWN = 60
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True)
class Sample:
    """Patches that are to be saved as pictures."""

    name: str
    sample: bool
    mode: str
    k: int
    seed: int
    score_start: float
    score_end: float


@dataclass(frozen=True)
class Config:
    """A configuration, checked.

    Attributes
    ----------
    path : Path
    content : bytes
        The file as it is, to be kept beside the results.
    values : mapping
        Section -> key -> value; every key of the table that has an effect is there.
    samples : tuple of Sample
    notices : tuple of str
        What was not understood or has no effect, a line each.
    """

    path: Path
    content: bytes
    values: Mapping[str, Values]
    samples: tuple[Sample, ...]
    notices: tuple[str, ...]

    @property
    def experiment(self) -> Values:
        """The section exp_arguments."""
        return self.values["exp_arguments"]

    @property
    def data(self) -> Values:
        """The section data_arguments."""
        return self.values["data_arguments"]

    @property
    def patching(self) -> Values:
        """The section patching_arguments."""
        return self.values["patching_arguments"]

    @property
    def encoder(self) -> Values:
        """The section encoder_arguments."""
        return self.values["encoder_arguments"]

    @property
    def model(self) -> Values:
        """The section model_arguments."""
        return self.values["model_arguments"]

    @property
    def heatmap(self) -> Values:
        """The section heatmap_arguments."""
        return self.values["heatmap_arguments"]

    @property
    def encodes(self) -> bool:
        """Whether features are made from the slides."""
        return self.encoder["model_name"] is not None

    def find(self, text: str, what: str, *places: str | Path, folder: bool = False) -> Path:
        """Find a file or folder that the configuration names.

        Relative paths are tried against the working directory, then the configuration's, and
        within `places` of both.

        Raises
        ------
        ConfigError
            Listing what was tried.
        """
        tried = self.candidates(text, *places)
        for path in tried:
            if path.is_dir() if folder else path.is_file():
                return path
        told = ", ".join(map(str, tried))
        raise ConfigError(f"{what} not found", told, f"correct it in {self.path}")

    def candidates(self, text: str, *places: str | Path) -> list[Path]:
        """Where a path of the configuration may lead, in the order of trying."""
        path = Path(os.path.expanduser(text))
        if path.is_absolute():
            return [path]
        bases = [Path.cwd(), self.path.parent]
        found = [base / place / path for place in ("", *places) for base in bases]
        return list(dict.fromkeys(Path(os.path.normpath(one)) for one in found))

    def changed(self, section: str, **values: Any) -> Config:
        """Return a copy with other values, as options of the command line give them."""
        return replace(self, values={**self.values, section: {**self.values[section], **values}})


def read_config(path: str | os.PathLike[str]) -> Config:
    """Read a configuration in the manner of CLAM's or MIL-Lab's heatmap templates.

    Parameters
    ----------
    path : path
        YAML.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError
        In one line: no such file, no YAML, a section or a key that is missing, a wrong value.
    """
    file = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
    content = read_bytes(file, "the configuration")
    found = parse(content, file)
    reader = _Reader(file)
    values = {name: reader.section(name, found.pop(name, None)) for name in SECTIONS}
    reader.unknown(found, list(SECTIONS), "section")
    samples = reader.samples(values["sample_arguments"].pop("samples"))
    config = Config(file, content, values, samples, ())
    return replace(config, notices=(*reader.notices, *_idle_here(config, reader.given)))


class _Reader:
    """Checks sections key by key, and collects what is to be told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notices: list[str] = []
        self.given: list[tuple[str, Key]] = []
        """Keys that stand in the file, other than their default: section and name as given."""

    def section(self, name: str, found: Any) -> dict[str, Any]:
        """Check one section; an empty one is as good as none."""
        self._refuse_no_mapping(name, found)
        return self._checked(SECTIONS[name], name, dict(found or {}))

    def samples(self, found: Any) -> tuple[Sample, ...]:
        """Check the list of samples."""
        where = "sample_arguments.samples"
        if not isinstance(found, (list, tuple)):
            self._refuse(where, found, "a list; each sample begins with a - ")
        made = []
        for number, one in enumerate(found):
            self._refuse_no_mapping(f"{where}[{number}]", one)
            made.append(Sample(**self._checked(SAMPLE_KEYS, f"{where}[{number}]", dict(one or {}))))
        names = [one.name for one in made]
        if len(set(names)) < len(names):
            self._refuse(where, names, "each sample a name of its own")
        return tuple(made)

    def _checked(self, section: Section, where: str, found: dict[Any, Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key in section.keys:
            spelled, given = self._given(key, where, found)
            if not key.idle:
                values[key.name] = self._value(key, where, given)
            if given is not None and (key.idle or values[key.name] != key.default):
                self.given.append((f"{where}.{spelled}", key))
        spellings = [s for key in section.keys for s in (key.name, *key.also)]
        self.unknown(found, spellings, "key", where)
        return values

    def _given(self, key: Key, where: str, found: dict[Any, Any]) -> tuple[str, Any]:
        """Take a key out, as it is spelled there; null counts as absent."""
        spelled = {s: found.pop(s) for s in (key.name, *key.also) if s in found}
        spelled = {s: value for s, value in spelled.items() if value is not None}
        if len({repr(value) for value in spelled.values()}) > 1:
            self._refuse(f"{where}: {' and '.join(spelled)}", spelled, "one of them")
        return next(iter(spelled.items()), (key.name, None))

    def _value(self, key: Key, where: str, given: Any) -> Any:
        if given is None:
            if key.required:
                raise ConfigError(
                    f"{where}.{key.name} is missing", self._path, f"give {key.effect}"
                )
            return key.default
        try:
            return key.check(given)
        except WrongValueError as error:
            self._refuse(f"{where}.{key.name}", given, str(error))

    def unknown(
        self, found: Mapping[Any, Any], known: Sequence[str], what: str, where: str = ""
    ) -> None:
        """Tell of names that are not known, and what may have been meant."""
        for name in found:
            text = str(name)[:SHOWN]
            full = f"{where}.{text}" if where else text
            self.notices.append(f"the {what} {full} is not known{_hint(text, known, where)}")

    def _refuse_no_mapping(self, where: str, found: Any) -> None:
        if found is not None and not isinstance(found, dict):
            self._refuse(where, found, "keys with values, such as alpha: 0.4")

    def _refuse(self, where: str, found: Any, wanted: str) -> NoReturn:
        shown = repr(found)
        shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
        raise ConfigError(f"{where} is {shown}", self._path, f"give {wanted}")


def _hint(text: str, known: Sequence[str], where: str) -> str:
    homes = [name for name, section in SECTIONS.items() if name != where and section.key(text)]
    if homes and where:
        return f": it belongs to {homes[0]}"
    close = difflib.get_close_matches(text.lower(), known, n=1, cutoff=0.6)
    return f": did you mean {close[0]}?" if close else ""


def _idle_here(config: Config, given: Sequence[tuple[str, Key]]) -> list[str]:
    """What stands in the file and has no effect here, with the reason."""
    told = [f"{name} has no effect: {key.idle}" for name, key in given if key.idle]
    reasons = "the features are made from the slides", "the features are read from files"
    for name, key in given:
        if key.only and (key.only == ENCODER) != config.encodes:
            reason = reasons[key.only == ENCODER]
            told.append(f"{name} has no effect: {reason}")
    return told
