"""What is dropped on napari and is no regular file is not read, and nothing waits for it."""

from __future__ import annotations

import os

import pytest

from napari_wsi_heatmap._napari.reader import get_reader


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("ending", ["svs", "tif", "dcm", "ome.tif", "mrxs", "zarr"])
def test_pipes_and_devices_are_left_alone(tmp_path, ending):
    pipe, device = tmp_path / f"pipe.{ending}", tmp_path / f"device.{ending}"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    assert get_reader(str(pipe)) is None
    assert get_reader(str(device)) is None
    assert get_reader([str(device), str(pipe)]) is None
