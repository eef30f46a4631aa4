"""The slides of a configuration: rows of its process list, or all slides of its folders."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_wsi_heatmap.mil.configkinds import WrongValueError, name
from napari_wsi_heatmap.mil.processlist import (
    COORDS,
    FEATURES,
    ID,
    LABEL,
    box_of,
    read_rows,
    refuse_doubles,
)
from napari_wsi_heatmap.mil.segmentation import Segmentation
from napari_wsi_heatmap.mil.yamlfile import ConfigError
from napari_wsi_heatmap.slides import SLIDE_EXTENSIONS, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.mil.processlist import Row

UNSPECIFIED = "Unspecified"
"""Label of a slide without one, as in CLAM."""


@dataclass(frozen=True)
class Entry:
    """One slide to work on.

    Attributes
    ----------
    slide_id : str
        Without ending.
    label : str
    slide : Path
    features, coords : str or None
        Files of its own, as the process list names them.
    box : (y0, x0, y1, x1) or None
        Region of interest, level-0 pixels.
    segmentation : Segmentation
        How its tissue is found.
    """

    slide_id: str
    label: str
    slide: Path
    features: str | None = None
    coords: str | None = None
    box: tuple[float, float, float, float] | None = None
    segmentation: Segmentation = field(default_factory=Segmentation)


@dataclass(frozen=True)
class Refused:
    """A slide that cannot be worked on, and why."""

    slide_id: str
    error: ConfigError


def entries_of(config: Config) -> list[Entry | Refused]:
    """List the slides of a configuration; one that cannot be is refused by itself.

    Raises
    ------
    ConfigError
        If there is no such list or folder, no slide, or one id stands for several.
    """
    folders = _folders(config)
    preset = _preset(config)
    rows = _listed(config) if config.data["process_list"] else _found(config, folders)
    if not rows:
        what = "no slide is to be processed"
        where = config.data["process_list"] or ", ".join(map(str, folders.values()))
        endings = ", ".join(config.data["slide_ext"])
        raise ConfigError(what, where, f"check data_dir, slide_ext ({endings}) and the list")
    return [_entry(config, row, folders, preset) for row in rows]


def _folders(config: Config) -> dict[str, Path]:
    given = config.data["data_dir"]
    named = given if isinstance(given, dict) else {str(i): text for i, text in enumerate(given)}
    return {key: config.find(text, "data_dir", folder=True) for key, text in named.items()}


def _preset(config: Config) -> Segmentation:
    text = config.data["preset"]
    return Segmentation() if text is None else Segmentation.preset(config, text)


def _listed(config: Config) -> list[Row]:
    text = config.data["process_list"]
    path = config.find(text, "process_list", "heatmaps/process_lists")
    rows = read_rows(path)
    key = config.data["data_dir_key"]
    if isinstance(config.data["data_dir"], dict) and rows and not any(key in row for row in rows):
        what = f"the process list has no column {key!r}, which says the folder of each slide"
        raise ConfigError(what, path, "add it, or correct data_dir_key")
    refuse_doubles([bare(row[ID], config.data["slide_ext"]) for row in rows], path)
    return rows


def _found(config: Config, folders: Mapping[str, Path]) -> list[Row]:
    """Rows as a list of all slides of the folders would have them."""
    key, endings = config.data["data_dir_key"], config.data["slide_ext"]
    found = [
        (name_, place, path)
        for place, path in folders.items()
        for name_ in slides_in(path, endings)
    ]
    ids = [bare(name_, endings) for name_, _, _ in found]
    refuse_doubles(ids, config.path, [path / name_ for name_, _, path in found])
    return [{ID: name_, key: place} for name_, place, _ in found]


def slides_in(folder: Path, endings: Sequence[str]) -> list[str]:
    """Names of the slides of a folder, sorted; hidden files are none."""
    with os.scandir(folder) as found:
        return sorted(
            entry.name
            for entry in found
            if entry.name.lower().endswith(tuple(endings))
            and not entry.name.startswith(".")
            and (entry.is_file() or kind_of(entry.path) == "zarr")
        )


def bare(name_: str, endings: Iterable[str]) -> str:
    """A slide's name without its ending, if that is one of a slide."""
    lower = name_.lower()
    for ending in sorted({*endings, *SLIDE_EXTENSIONS, ".zarr"}, key=len, reverse=True):
        if lower.endswith(ending) and len(lower) > len(ending):
            return name_[: -len(ending)]
    return name_


def _entry(
    config: Config, row: Row, folders: Mapping[str, Path], preset: Segmentation
) -> Entry | Refused:
    slide_id = bare(row[ID], config.data["slide_ext"])
    try:
        _refuse_path(ID, slide_id)
        label = _label(config, row)
        return Entry(
            slide_id,
            label,
            _slide(config, row, _within(config, row, folders)),
            row.get(FEATURES),
            row.get(COORDS),
            box_of(row),
            preset.overridden(row),
        )
    except ConfigError as error:
        return Refused(slide_id, error)


def _refuse_path(what: str, given: str) -> None:
    try:
        name(given)
    except WrongValueError as error:
        text = f"{what} {given!r} leads out of its folder or is no name"
        raise ConfigError(text, do=f"give {error}") from error


def _label(config: Config, row: Row) -> str:
    label, names = row.get(LABEL, UNSPECIFIED), config.data["label_dict"] or {}
    by_number = {str(number): text for text, number in names.items()}
    label = by_number.get(label.removesuffix(".0"), label)
    _refuse_path(LABEL, label)
    return label


def _within(config: Config, row: Row, folders: Mapping[str, Path]) -> list[Path]:
    """Folders in which the slide of a row may lie."""
    key = config.data["data_dir_key"]
    keyed = isinstance(config.data["data_dir"], dict) or not config.data["process_list"]
    if not keyed:
        return list(folders.values())
    if row.get(key) not in folders:
        what = f"column {key} is {row.get(key, 'empty')!r}, and data_dir has no such key"
        raise ConfigError(what, row[ID], f"there are {', '.join(folders)}")
    return [folders[row[key]]]


def _slide(config: Config, row: Row, folders: Sequence[Path]) -> Path:
    endings = config.data["slide_ext"]
    slide_id = bare(row[ID], endings)
    names = dict.fromkeys([row[ID], *(f"{slide_id}{ending}" for ending in endings)])
    named = [one for one in names if one != slide_id] or list(names)
    tried = [folder / one for folder in folders for one in named]
    for path in tried:
        if path.exists():
            return path
    what = f"no slide {', '.join(named)}"
    raise ConfigError(what, ", ".join(map(str, folders)), "check slide_id, slide_ext and data_dir")
