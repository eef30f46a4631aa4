"""The scripts under examples/ do what they say."""

from __future__ import annotations

import importlib.util
import re
import shutil
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


def test_notebook(slides, tmp_path, capsys):
    out = tmp_path / "notebook"
    heatmap = example("notebook").main([slides[0], "--out", str(out), "--all"])
    tiles = wh.tissue_windows(slides[0], 64, tissue="variance2:80")
    table = pd.read_parquet(out / "latents.parquet")
    assert list(table) == ["x", "y", *(f"latent_{i}" for i in range(32))]
    np.testing.assert_array_equal(table[["y", "x"]], tiles)
    assert len(table) > 20
    components = pd.read_parquet(out / "components.parquet")
    latents = table.iloc[:, 2:].to_numpy(np.float64)
    spread = np.linalg.svd(latents - latents.mean(0), compute_uv=False)[:3] / len(table) ** 0.5
    np.testing.assert_allclose(components.iloc[:, -3:].std(ddof=0), spread, rtol=1e-3)
    edges = pd.read_parquet(out / "edges_by_latents.parquet")
    assert len(edges) == 5 * len(table)
    with wh.open_slide(out / "middle.zarr") as middle:
        assert middle.levels[0].shape == (256, 320)
    for name in ("thumbnail", "tiles", "reconstructions", "pca", "correlation"):
        assert (out / f"{name}.png").stat().st_size > 500
    said = capsys.readouterr().out
    assert f"vae2: {len(heatmap.listed)} tiles, 32 latent variables each" in said
    assert "three components explain" in said


def run_page(name, names):
    page = (EXAMPLES.parent / "docs" / name).read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, name, "exec"), names)
    return names


def test_the_page_of_streams(slides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("streams.md", {"my_slides": slides})
    assert names["done"].windows == dict.fromkeys(slides, 80)
    assert {path.name for path in names["done"].files.values()} == {"a.csv", "b.csv"}
    assert names["x"].mean() < 200 / 255


def test_the_page_of_the_notebook(slides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(slides[0], "slide.svs")
    example("notebook").random_checkpoint("M2_WEIGHTS.PT")
    page = (EXAMPLES.parent / "docs" / "notebook.md").read_text(encoding="utf-8")
    names = {"client": None}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "notebook.md", "exec"), names)
    names["slide"].close()
    assert len(pd.read_parquet("latents.parquet")) == len(names["tiles"]) > 20


def test_the_page_from_pydmed(slides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 32, 32), torch.nn.Sigmoid())
    names = run_page("from-pydmed.md", {"my_slides": slides, "my_module": module})
    assert names["x"].shape == (10, 3, 224, 224)
    assert names["done"].windows == dict.fromkeys(slides, 6)
    assert names["raster"].shape == (16, 20, 1)
    assert names["layer"].listed.shape == (16 * 20, 1)
