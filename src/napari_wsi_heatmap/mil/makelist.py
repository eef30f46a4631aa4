"""A process list made from a folder of slides and a folder of their features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_wsi_heatmap.mil.featuresources import PLACES, VECTORS
from napari_wsi_heatmap.mil.processlist import COORDS, FEATURES, ID, PROCESS, write_list
from napari_wsi_heatmap.mil.slidelist import bare, slides_in
from napari_wsi_heatmap.mil.yamlfile import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def make_process_list(
    slides: Path, features: Path, out: Path, endings: Sequence[str]
) -> tuple[int, int]:
    """Write a list of all slides of a folder: id, process = 1, and where the features lie.

    Parameters
    ----------
    slides, features : Path
        Folders; features as CLAM, TRIDENT or MIL-Lab lay them out.
    out : Path
        CSV to write; never over a file.
    endings : sequence of str
        Of the slides' files.

    Returns
    -------
    (int, int)
        Number of slides, and how many of them have no features there: their cells are empty.

    Raises
    ------
    ConfigError
        If a folder is missing or holds no slide.
    ExportError
        If there is something at `out`.
    """
    for what, folder in (("folder of slides", slides), ("folder of features", features)):
        if not folder.is_dir():
            raise ConfigError(f"there is no such {what}", folder, "check the path")
    names = slides_in(slides, endings)
    if not names:
        do = f"check --slide-ext ({', '.join(endings)})"
        raise ConfigError("there is no slide", slides, do)
    rows = [_row(bare(name, endings), features) for name in names]
    write_list(out, (ID, PROCESS, FEATURES, COORDS), rows)
    return len(rows), sum(not row[2] for row in rows)


def _row(slide_id: str, features: Path) -> tuple[str, int, str, str]:
    return slide_id, 1, _first(VECTORS, features, slide_id), _first(PLACES, features, slide_id)


def _first(patterns: Sequence[str], folder: Path, slide_id: str) -> str:
    """The first of some files that is there, as an absolute path; empty without one."""
    for pattern in patterns:
        path = Path(pattern.format(folder=folder.absolute(), id=slide_id))
        if path.is_file():
            return str(path.resolve())
    return ""
