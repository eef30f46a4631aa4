"""Which format a file gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.exports import FORMATS, choose_format


def test_every_format_can_be_imported_and_found():
    for row in FORMATS:
        assert callable(row.writer())
        assert choose_format(Path("x"), row.name) is row


def test_no_ending_belongs_to_two_formats():
    endings = [ending for row in FORMATS for ending in row.endings]
    assert len(endings) == len(set(endings))


@pytest.mark.parametrize(("file", "name"), [("a.doc", None), ("a", None), ("a.csv", "excel")])
def test_no_such_format_names_those_there_are(file, name):
    with pytest.raises(ExportError, match=r"there are csv .*png"):
        choose_format(Path(file), name)
