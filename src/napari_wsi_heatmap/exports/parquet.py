"""A table for data frames: `Heatmap.to_dataframe` as Parquet, written part by part.

Columns x, y (top-left, level-0 pixels), one per output, then latent_0, latent_1, … of the
features. The file's metadata ``napari-wsi-heatmap`` says, as JSON, how large a window is. Windows
that are not done are left out; NaN stays NaN, not null.

Memory bound: the map, and the features of 16 rows of windows.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_wsi_heatmap import __version__
from napari_wsi_heatmap.exports.windows import done_windows, feature_bands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_wsi_heatmap.exports.windows import DoneWindows
    from napari_wsi_heatmap.heatmap import Heatmap
    from napari_wsi_heatmap.slides.base import Slide

KEY = "napari-wsi-heatmap"
ROWS = 1 << 16
"""Rows of a group where there are no features."""


def write(
    heatmap: Heatmap, path: Path, *, slide: Slide | None = None, features: bool = True
) -> None:
    """Write the table.

    Parameters
    ----------
    heatmap : Heatmap
        Of a dense map a window's value is the mean of its cells.
    path : Path
    slide : Slide, optional
        Not needed.
    features : bool
        With a column for each feature, if there are any, unless the outputs bear these names.
    """
    import pyarrow
    import pyarrow.parquet

    # Of a model whose outputs are its features a column must not be there twice.
    features = features and heatmap.features is not None and "latent_0" not in heatmap.names
    windows = done_windows(heatmap)
    schema = _schema(pyarrow, heatmap, features=features)
    with pyarrow.parquet.ParquetWriter(path, schema, use_dictionary=False) as out:
        for columns in _parts(heatmap, windows, features=features):
            out.write_table(pyarrow.table(columns, schema=schema))


def _schema(pyarrow: Any, heatmap: Heatmap, *, features: bool) -> Any:
    fields = [("x", pyarrow.float64()), ("y", pyarrow.float64())]
    latent = heatmap.features.shape[-1] if features else 0
    names = [*heatmap.names, *(f"latent_{d}" for d in range(latent))]
    fields += [(name, pyarrow.float32()) for name in names]
    return pyarrow.schema(fields, {KEY: json.dumps(_about(heatmap))})


def _about(heatmap: Heatmap) -> dict[str, Any]:
    return {
        "version": __version__,
        "slide": heatmap.run["slide"]["name"],
        "window_level0": heatmap.window_size,
        "activation": heatmap.run["model"]["activation"],
        "names": heatmap.names,
    }


def _parts(heatmap: Heatmap, windows: DoneWindows, *, features: bool) -> Iterator[list[Any]]:
    """Columns of a group of rows."""
    if not features:
        for begin in range(0, len(windows), ROWS):
            yield _columns(windows, slice(begin, begin + ROWS))
        return
    begin = 0
    for band in feature_bands(heatmap):
        part = slice(begin, begin + len(band))
        yield [*_columns(windows, part), *band.T]
        begin = part.stop


def _columns(windows: DoneWindows, part: slice) -> list[Any]:
    corners, values = windows.corners[part], windows.values[part]
    return [corners[:, 1], corners[:, 0], *values.T]
