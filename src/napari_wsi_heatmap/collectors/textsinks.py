"""Files that grow row by row, and are whole after each of them: csv and pdmcsv."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np

from napari_wsi_heatmap.collectors.sink import SlideSink, no_maps
from napari_wsi_heatmap.errors import PlanMismatchError
from napari_wsi_heatmap.exports.csv import PLACE, harmless
from napari_wsi_heatmap.exports.pdmcsvwriter import PdmcsvWriter
from napari_wsi_heatmap.exports.windows import number_texts
from napari_wsi_heatmap.rowfile import RowFile, whole_lines

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_wsi_heatmap.grid import WindowSpec

    Index = NDArray[np.int64]
    Values = NDArray[np.float32]


@final
class CsvSink(SlideSink):
    """One row a window, in the columns of the export ``csv``."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._size = number_texts(np.array(self.of.spec.footprint_level0[::-1], np.float64))
        head = ",".join([*PLACE, *map(harmless, map(_plain, self.names))]) + "\n"
        keep = whole_lines(self.path) if self.path.exists() else 0
        if keep:
            _refuse_other_head(self.path, head)
        self._file = RowFile(self.path, keep)
        if not keep:
            self._file.add(head.encode())

    def add(self, windows: Index, values: Values) -> None:
        """Take rows."""
        if values.ndim != 2:
            raise no_maps("csv", values, self.path)
        places = windows[:, ::-1].astype(str)
        sizes = np.broadcast_to(self._size, places.shape)
        rows = np.concatenate([places, sizes, values.astype(str)], axis=1)
        self._file.add("".join(",".join(row) + "\n" for row in rows.tolist()).encode())

    def flush(self) -> None:
        """Bring the rows to the disk."""
        self._file.flush()

    def finish(self, *, whole: bool) -> None:
        """Bring the rest to the disk."""
        del whole
        self.flush()

    @staticmethod
    def windows_in(path: Path, spec: WindowSpec) -> Index:
        """Top-left (y, x) of the windows (n, 2) that whole rows hold."""
        del spec
        text = path.read_bytes()[: whole_lines(path)].decode()
        rows = [row.split(",")[:2] for row in text.splitlines()[1:]]
        return np.array([[int(y), int(x)] for x, y in rows], np.int64).reshape(-1, 2)


def _plain(name: str) -> str:
    return name.replace(",", " ").replace("\n", " ").replace('"', "'")


def _refuse_other_head(path: Path, head: str) -> None:
    with path.open(encoding="utf-8") as file:
        found = file.readline()
    if found != head:
        raise PlanMismatchError(
            f"its columns are {found.strip()[:80]!r}", path, "choose another output"
        )


@final
class PdmcsvSink(SlideSink):
    """PyDmed's rows, and a JSON file beside them."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        spec = self.of.spec
        self._writer = PdmcsvWriter(
            self.path,
            self.of.slide,
            window=spec.footprint,
            level=spec.level,
            names=self.names,
            about=self.about,
            append=True,
            flush_s=float("inf"),
        )

    def add(self, windows: Index, values: Values) -> None:
        """Take rows."""
        self._writer.write(values, windows)

    def flush(self) -> None:
        """Bring the rows to the disk."""
        self._writer.flush()

    def finish(self, *, whole: bool) -> None:
        """Bring the rest to the disk."""
        del whole
        self._writer.close()

    @staticmethod
    def windows_in(path: Path, spec: WindowSpec) -> Index:
        """Top-left (y, x) of the windows (n, 2) that whole rows hold."""
        text = path.read_bytes()[: whole_lines(path)].decode("ascii")
        corners = [tuple(map(int, row.split(",")[:2])) for row in text.splitlines()]
        found = np.array(corners, np.float64).reshape(-1, 2) * np.asarray(spec.downsample)
        return np.rint(found).astype(np.int64)
