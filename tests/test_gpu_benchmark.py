"""The benchmark of whole runs on accelerators works, on whatever device there is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

import napari_wsi_heatmap as wh

FILE = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
        yield module


def test_the_models_have_the_shapes_that_they_are_named_after(gpu):
    with torch.device("meta"):  # shapes without numbers
        net, transformer = gpu.resnet(), gpu.Transformer()
        batch = torch.empty(2, 3, 224, 224)
    assert sum(p.numel() for p in net.parameters()) == 25_557_032
    assert sum(p.numel() for p in transformer.parameters()) == 303_301_632
    assert net(batch).shape == (2, 1000)
    assert transformer(batch).shape == (2, 1024)


def test_the_made_slide_is_read_by_tiles(gpu, tmp_path):
    gpu.make_slide(tmp_path / "made.tif", 512)
    with wh.open_slide(tmp_path / "made.tif") as slide:
        assert slide.levels[0].shape == (512, 512)
        assert slide.mpp == pytest.approx((0.5, 0.5))
        pixels = slide.read_region(0, 0, 0, 512, 512)
    assert (pixels[:256, :256] != pixels[256:, 256:]).any()
    assert pixels.std() > 10


def test_a_small_run_prints_a_row_for_each_model_and_precision(gpu, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "results" / "gpu.md")
    gpu.main(["--small", "--device", "cpu", "--repeats", "1", "--alone-s", "0.05", "--write"])
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| small")]
    assert [row.split(" | ")[1] for row in rows] == ["bfloat16", "float32"] * 2
    assert "Device: cpu" in printed
    assert gpu.RESULTS.read_text() == printed
