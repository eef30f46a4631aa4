"""Tissue as CLAM's pipelines find it: saturation above a threshold, small pieces left out.

From mil.md's description of the rule, not from code: the saturation of HSV is smoothed by a median,
what lies above the threshold closed, and pieces and holes kept by their area. Areas count pixels
in units of 512 x 512 level-0 px. Where nothing passes, the whole slide counts as tissue.

Memory bound: about 20 bytes a pixel of the level looked at, at most `MOST_PIXELS`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap.mil.configkinds import (
    WrongValueError,
    flag,
    ids,
    number,
    one_of,
    whole,
)
from napari_wsi_heatmap.mil.processlist import read_preset
from napari_wsi_heatmap.mil.yamlfile import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_wsi_heatmap.mil.config import Config
    from napari_wsi_heatmap.mil.configkinds import Check

REFERENCE = 512**2
"""Level-0 px: unit of `a_t` and `a_h`."""
COLUMNS: dict[str, Check] = {
    "seg_level": whole(-1),
    "sthresh": number(0, 255),
    "mthresh": whole(1),
    "close": whole(0),
    "use_otsu": flag,
    "keep_ids": ids,
    "exclude_ids": ids,
    "a_t": number(0),
    "a_h": number(0),
    "max_n_holes": whole(0),
    "vis_level": whole(-1),
    "line_thickness": whole(0),
    "use_padding": flag,
    "contour_fn": one_of("four_pt", "four_pt_hard", "center", "basic"),
}
"""Columns of a process list or preset, each with its check."""
PRESETS: dict[str, dict[str, str]] = {
    "bwh_biopsy": {"a_t": "1", "a_h": "1", "max_n_holes": "2"},
}
"""CLAM's own, for configurations that name them where CLAM is not installed."""


@dataclass(frozen=True)
class Segmentation:
    """How tissue is found; the names are those of CLAM's columns.

    Attributes
    ----------
    seg_level : int
        Level that is looked at; -1: about 32 times smaller.
    sthresh : float
        Saturation 0…255 that tissue is above.
    mthresh : int
        Side of the median, px of the level.
    close : int
        Side of the square that closes gaps, px; 0 leaves them.
    use_otsu : bool
        Find the threshold by Otsu's rule.
    keep_ids, exclude_ids : tuple of int
        Pieces to take or to leave out, numbered from the lower border of the slide upwards.
    a_t, a_h : float
        Smallest piece and smallest hole, units of 512 x 512 level-0 px.
    max_n_holes : int
        Holes a piece keeps at most, the largest.
    vis_level, line_thickness : int
        Level of the picture of the mask, and the width of its lines at level 0.
    use_padding : bool
        Whether patches may hang over the border.
    contour_fn : {"four_pt", "four_pt_hard", "center", "basic"}
        Which points of a patch must be tissue: one of four about its centre, all four, its
        centre, its corner.
    """

    seg_level: int = -1
    sthresh: float = 15
    mthresh: int = 11
    close: int = 2
    use_otsu: bool = False
    keep_ids: tuple[int, ...] = ()
    exclude_ids: tuple[int, ...] = ()
    a_t: float = 50
    a_h: float = 8
    max_n_holes: int = 10
    vis_level: int = -1
    line_thickness: int = 250
    use_padding: bool = True
    contour_fn: str = "four_pt"

    @classmethod
    def preset(cls, config: Config, text: str) -> Segmentation:
        """Read a preset that a configuration names.

        Raises
        ------
        ConfigError
            If there is none.
        """
        try:
            return cls().overridden(read_preset(config.find(text, "preset", "presets")))
        except ConfigError:
            stem = text.replace("\\", "/").rpartition("/")[2].removesuffix(".csv")
            if any(path.exists() for path in config.candidates(text)) or stem not in PRESETS:
                raise
            return cls().overridden(PRESETS[stem])

    def overridden(self, row: Mapping[str, str]) -> Segmentation:
        """Take over columns that are filled in.

        Raises
        ------
        ConfigError
            Naming the column that cannot be.
        """
        found: dict[str, Any] = {}
        for column, check in COLUMNS.items():
            if column in row:
                try:
                    found[column] = check(row[column])
                except WrongValueError as error:
                    what = f"column {column} is {row[column]!r}"
                    raise ConfigError(what, row.get("slide_id"), f"give {error}") from error
        return replace(self, **found)

    @property
    def plain(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {f.name: getattr(self, f.name) for f in fields(self)}
