"""Several models in one run, and several devices: read once, each as if it ran alone."""

from __future__ import annotations

import json
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

import napari_wsi_heatmap as wh
from made import FaultySlide, mean_rgb, noise_slide, quarter_means
from napari_wsi_heatmap.devices import choose_devices
from napari_wsi_heatmap.errors import GridError, HeatmapError, ModelError, StoreExistsError
from napari_wsi_heatmap.launch import complete, prepare, resume
from napari_wsi_heatmap.several import names_of
from napari_wsi_heatmap.states import DONE, FAILED, state_of

SETTINGS = {"window": 64, "stride": 48, "tissue": "none", "level": 0}
QUIET = SETTINGS | {"progress": False}


def red(batch):
    return batch[:, 0].mean((1, 2))


class Convolved(nn.Module):
    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 5, stride=3), nn.ReLU(), nn.Flatten(2))

    def forward(self, batch):
        return self.layers(batch).mean(2)


def alone(slide, model, **settings):
    return wh.compute_heatmap(slide, model, **QUIET | settings)


@pytest.mark.parametrize("order", ["viewport", "raster"])
def test_each_model_gives_what_it_gives_alone(order):
    slide, models = noise_slide(), [mean_rgb, red, quarter_means, Convolved(0)]
    heatmaps = wh.compute_heatmap(slide, models, order=order, **QUIET)
    assert len(heatmaps) == len(models)
    for model, heatmap in zip(models, heatmaps, strict=True):
        single = alone(slide, model, order=order)
        assert np.array_equal(heatmap.values, single.values, equal_nan=True)
        assert np.array_equal(heatmap.state, single.state)
        assert heatmap.run["counts"] == single.run["counts"]


def test_pixels_are_read_once():
    def reads(models):
        run = prepare(slide := FaultySlide(noise_slide()), models, **SETTINGS, readers=1)
        before = slide.reads
        complete(run, progress=False)
        return slide.reads - before

    assert reads([red, mean_rgb]) == reads([red]) > 0


def test_pieces_say_whose_they_are():
    slide = noise_slide()
    counts = {}
    for piece in wh.run(slide, [red, mean_rgb, red], **SETTINGS):
        counts[piece.model] = counts.get(piece.model, 0) + len(piece)
    assert list(counts) == ["red", "mean_rgb", "red-2"]
    assert len(set(counts.values())) == 1


def test_each_has_its_output_and_all_are_resumed(tmp_path):
    slide_file = made_tiff(tmp_path)
    models, out = ["hematoxylin", "eosin"], tmp_path / "both"
    run = prepare(slide_file, models, out=out, **SETTINGS)
    with closing(run.pieces()) as pieces:
        list(islice(pieces, 7))
    assert sorted(path.name for path in out.iterdir()) == ["eosin.zarr", "hematoxylin.zarr"]
    rest = resume(out)
    # In the order of the run, not of the alphabet: the first is what others are subtracted from.
    assert [share.name for share in rest.shares] == models
    assert rest.progress.done > 0
    complete(rest, progress=False)
    for name in models:
        path = out / f"{name}.zarr"
        heatmap = wh.open_heatmap(path)
        assert np.array_equal(heatmap.values, alone(slide_file, name).values, equal_nan=True)
        assert json.loads((path / "run.json").read_text())["status"] == "done"
        # Each can be continued by itself as well.
        assert prepare(slide_file, name, out=path, **SETTINGS).progress.done == heatmap.state.size


def made_tiff(tmp_path):
    import tifffile

    path = tmp_path / "slide.tiff"
    pixels = noise_slide(700, 900).read_region(0, 0, 0, 700, 900)
    tifffile.imwrite(
        path, pixels, tile=(128, 128), photometric="rgb", compression="deflate",
        resolution=(40000, 40000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


def test_what_one_has_and_the_other_lacks_is_computed_for_that_one_alone(tmp_path):
    slide, out = noise_slide(), tmp_path / "both"
    calls = {"red": 0, "blue": 0}

    def blue(batch):
        calls["blue"] += 1
        return batch[:, 2].mean((1, 2))

    def counted_red(batch):
        calls["red"] += 1
        return red(batch)

    alone(slide, counted_red, out=out / "counted_red.zarr")
    calls["red"] = 0
    heatmaps = wh.compute_heatmap(slide, [counted_red, blue], out=out, **QUIET)
    assert calls["red"] < calls["blue"] / 3  # the dry run
    assert all((state_of(h.state) == DONE).all() for h in heatmaps)


def test_windows_that_cannot_be_read_fail_for_all():
    slide = FaultySlide(noise_slide(), bad=[(100, 100)])
    first, second = wh.compute_heatmap(slide, [red, mean_rgb], **QUIET)
    assert (state_of(first.state) == FAILED).any()
    assert np.array_equal(first.state, second.state)
    assert first.run["failed"] == second.run["failed"]


def test_models_that_see_other_windows_are_refused():
    with pytest.raises(GridError, match=r"'red' and 'hematoxylin' would see different windows"):
        prepare(noise_slide(mpp=0.25), [wh.load_model(red, window=224), "hematoxylin"])


def test_one_models_output_is_not_taken_for_a_folder(tmp_path):
    out = tmp_path / "a.zarr"
    alone(noise_slide(), red, out=out)
    with pytest.raises(StoreExistsError, match="the output of one model"):
        prepare(noise_slide(), [red, mean_rgb], out=out, **SETTINGS)


def test_no_model_is_an_error():
    with pytest.raises(HeatmapError, match="no model"):
        prepare(noise_slide(), [], **SETTINGS)


def test_names_are_told_apart_on_any_disk():
    models = [wh.load_model(red), wh.load_model(red), wh.load_model(mean_rgb)]
    models[2].name = "RED"
    assert names_of(models) == ["red", "red-2", "RED-3"]


@pytest.mark.parametrize("device", ["cpu,cpu", "cpu,cpu,cpu"])
@pytest.mark.parametrize("model", ["hematoxylin", Convolved(3)])
def test_devices_share_the_regions(device, model):
    slide = noise_slide(1500, 2500, mpp=0.5)
    run = prepare(slide, model, **SETTINGS, device=device)
    assert len(run.plan.devices) == device.count("cpu")
    shared = complete(run, progress=False)
    single = alone(slide, model)
    assert np.array_equal(shared.values, single.values)
    assert np.array_equal(shared.state, single.state)


def test_devices_share_the_work_of_several_models():
    slide, models = noise_slide(1500, 2500), [Convolved(0), Convolved(1)]
    for model, heatmap in zip(
        models, wh.compute_heatmap(slide, models, device="cpu,cpu", **QUIET), strict=True
    ):
        assert np.array_equal(heatmap.values, alone(slide, model).values)


def test_every_device_has_layers_of_its_own_and_the_owners_stay_as_they_were():
    model = Convolved(0).train()
    seen = set()
    model.layers[0].register_forward_hook(lambda layer, *_: seen.add(id(layer)))
    slide = noise_slide(3000, 3000)
    wh.compute_heatmap(slide, model, device="cpu,cpu", **QUIET)
    assert len(seen) == 2
    assert model.training


def test_a_function_has_one_device_and_kinds_are_not_mixed():
    assert len(choose_devices("cpu,cpu", wh.load_model(red))) == 1
    with pytest.raises(ModelError, match=r"several kinds|no device"):
        choose_devices("cpu,cuda:0", wh.load_model(Convolved(0)))
