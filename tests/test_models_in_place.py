"""Models and transforms that keep, change or hand on what they are given: no value may differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import napari_wsi_heatmap as wh
from made import mean_grey, mean_rgb, naive, noise_slide

SETTINGS = {"window": 64, "stride": 48, "tissue": "none", "batch_size": 4}


class Keeps:
    """Holds on to every batch that it has seen."""

    def __init__(self):
        self.seen, self.copies = [], []

    def __call__(self, batch):
        self.seen.append(batch)
        self.copies.append(batch.clone())
        return mean_rgb(batch)


class KeepsViews(Keeps):
    def __call__(self, batch):
        self.seen.append(batch[1:3, :, 5:9, ::2])
        self.copies.append(self.seen[-1].clone())
        return mean_rgb(batch)


class Fills:
    """Returns the same tensor each time, filled anew."""

    def __init__(self):
        self.values = None

    def __call__(self, batch):
        found = batch.mean((2, 3))
        if self.values is None or self.values.shape != found.shape:
            self.values = torch.empty_like(found)
        self.values[:] = found
        return self.values


def changes(batch):
    return mean_rgb(batch.mul_(2).sub_(0.5))


def corner(batch):
    return batch[:, :, 7, 9]


def part(batch):
    return batch[:, :2, ::16, ::16]


def changed_corner(batch):
    return batch.mul_(3)[:, 1:, 3, 4]


def same(batch):
    return batch


def doubled_in_place(batch):
    return batch.mul_(2)


def run(model, slide=None, **settings):
    slide = slide or noise_slide(300, 400)
    return wh.compute_heatmap(slide, model, progress=False, **{**SETTINGS, **settings})


def expected(heatmap, function):
    return naive(heatmap, noise_slide(300, 400), function)


@pytest.mark.parametrize("function", [changes, corner, changed_corner])
@pytest.mark.parametrize("order", ["raster", "viewport"])
def test_what_changes_or_returns_its_input(function, order):
    heatmap = run(function, order=order)
    np.testing.assert_allclose(heatmap.values, expected(heatmap, function), rtol=1e-6)


def test_a_dense_model_that_returns_a_part_of_its_input():
    slide = noise_slide(256, 384)
    heatmap = run(part, slide, stride=64)
    pixels = slide.read_region(0, 0, 0, 256, 384).transpose(2, 0, 1)[:2, ::16, ::16]
    assert np.array_equal(heatmap.values, pixels.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("kind", [Keeps, KeepsViews, Fills])
def test_what_keeps_its_input_or_fills_its_output_anew(kind):
    model = kind()
    heatmap = run(model)
    np.testing.assert_allclose(heatmap.values, expected(heatmap, mean_rgb), rtol=1e-6)
    if kind is not Fills:
        assert len(model.seen) > 10
        assert all(map(torch.equal, model.seen, model.copies))


def test_pieces_that_are_kept_stay_as_they_were():
    for model in (Fills(), corner):
        pieces = [(p, p.values.copy()) for p in wh.run(noise_slide(300, 400), model, **SETTINGS)]
        assert all(np.array_equal(piece.values, values) for piece, values in pieces)


@pytest.mark.parametrize(("transform", "factor"), [(same, 1), (doubled_in_place, 2)])
def test_a_transform_that_returns_what_it_was_given(transform, factor):
    heatmap = run(wh.load_model(mean_rgb, window=64, transform=transform), window=None)
    found = expected(heatmap, lambda batch: mean_rgb(batch * factor))
    np.testing.assert_allclose(heatmap.values, found, rtol=1e-6)


def test_models_of_one_run_do_not_see_what_another_has_changed():
    slide = noise_slide(300, 400)
    maps = wh.compute_heatmap(
        slide, [changes, mean_rgb, changed_corner], progress=False, **SETTINGS
    )
    for heatmap, function in zip(maps, (changes, mean_rgb, changed_corner), strict=True):
        np.testing.assert_allclose(heatmap.values, expected(heatmap, function), rtol=1e-6)


class ShortOfMemory:
    """Changes its input, and only then finds that the batch is too large."""

    def __init__(self, most):
        self.most, self.failed = most, 0

    def __call__(self, batch):
        batch.sub_(0.25).mul_(2)
        if len(batch) > self.most and batch[2:].any():  # the dry run has zeros there
            self.failed += 1
            raise torch.OutOfMemoryError("out of memory")
        return mean_grey(batch)


@pytest.mark.parametrize("most", [2, 4])
def test_a_batch_that_was_changed_and_did_not_fit_is_computed_from_the_pixels(most):
    model = ShortOfMemory(most)
    heatmap = run(model, batch_size=16)
    assert model.failed
    found = expected(heatmap, lambda batch: mean_grey((batch - 0.25) * 2))
    np.testing.assert_allclose(heatmap.values, found, rtol=1e-5)


class Fidgety(torch.nn.Module):
    """Changes its input and fills its output anew, on every device."""

    def __init__(self):
        super().__init__()
        self.fills = Fills()

    def forward(self, batch):
        return self.fills(batch.add_(1))


def test_devices_do_not_share_what_a_model_keeps():
    heatmap = run(Fidgety(), device="cpu,cpu")
    found = expected(heatmap, lambda batch: mean_rgb(batch + 1))
    np.testing.assert_allclose(heatmap.values, found, rtol=1e-6)
    assert heatmap.run["notices"] == []
