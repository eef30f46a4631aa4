"""The scripts under examples/ do what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.sample import make_sample_slide

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    paths = [folder / f"{name}.svs" for name in "ab"]
    for seed, path in enumerate(paths):
        make_sample_slide(path, size=(512, 640), seed=seed)
    return [str(path) for path in paths]


def test_console_scripting(slides, tmp_path, capsys):
    picture = tmp_path / "redness.png"
    heatmap = example("console_scripting").headless(slides[0], picture)
    assert "the reddest" in capsys.readouterr().out
    assert picture.stat().st_size > 1000
    assert np.isfinite(heatmap.values).any()


def test_custom_model(slides, tmp_path, capsys):
    out = tmp_path / "out.zarr"
    heatmap, table = example("custom_model").main(slides[0], out)
    assert "tumour" in capsys.readouterr().out
    np.testing.assert_allclose(table.benign + table.tumour, 1, atol=1e-6)
    assert [name for name in table if name.startswith("latent")][-1] == "latent_15"
    np.testing.assert_array_equal(wh.open_heatmap(out).values, heatmap.values)


def test_custom_region_reader(slides):
    module = example("custom_region_reader")
    losses = module.train(slides, steps=12)
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    assert losses == module.train(slides, steps=12)
    with wh.open_slide(slides[0]) as slide:
        stream = wh.stream(slide, window=64, read=module.evened_out)
        means = torch.cat([x.mean((0, 2, 3))[None] for x, _, _ in stream])
    assert (means.std(0) < 0.2).all()


def test_collector(slides, tmp_path, capsys):
    module, out = example("collector"), tmp_path / "out"
    assert module.main(out, slides, enough=1).status == "ended"
    done = module.main(out, slides)
    assert done.status == "done"
    assert "windows in" in capsys.readouterr().out
    for slide, path in done.files.items():
        table = pd.read_parquet(path)
        assert list(table) == ["x", "y", "mean", "spread"]
        assert len(table) == done.windows[slide] == len(table.drop_duplicates(["x", "y"]))


def test_the_page_from_pydmed(slides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (EXAMPLES.parent / "docs" / "from-pydmed.md").read_text(encoding="utf-8")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 32, 32), torch.nn.Sigmoid())
    names = {"my_slides": slides, "my_module": module}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "from-pydmed.md", "exec"), names)
    assert names["x"].shape == (10, 3, 224, 224)
    assert names["done"].windows == dict.fromkeys(slides, 6)
    assert names["raster"].shape == (16, 20, 1)
    assert names["layer"].listed.shape == (16 * 20, 1)
