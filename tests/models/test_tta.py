"""Test-time augmentation: which views, what is averaged, what their spread is, what a run keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import napari_wsi_heatmap as wh
from made import naive, noise_slide, quarter_means
from napari_wsi_heatmap.errors import ModelOutputError, ModelRunError, PlanMismatchError
from napari_wsi_heatmap.models import load_model
from napari_wsi_heatmap.models.tta import ENTROPY, STD, VIEWS, averaged, entropy

KINDS = ("flips", "dihedral")
PATCHES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ALIKE = {"tissue": "none", "level": 0, "batch_size": 4}
QUIET = ALIKE | {"progress": False}


def corner(x):
    """(N, 3): what the upper left corner shows; another one in each view."""
    return x[:, :, 0, 1]


def logits(x):
    return 9 * corner(x)


def all_views(x):
    """All eight by NumPy's rot90, the four of flips first."""
    array = x.numpy()
    flips = [array, array[:, :, ::-1], array[:, :, :, ::-1], array[:, :, ::-1, ::-1]]
    turned = [np.rot90(one, 1, (2, 3)) for one in flips]
    return [torch.from_numpy(np.ascontiguousarray(one)) for one in [*flips, *turned]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_views_are_those_of_the_group(kind):
    shown = [view.of(PATCHES) for view in VIEWS[kind]]
    wanted = all_views(PATCHES)[: len(shown)]
    assert len(shown) == (4 if kind == "flips" else 8)
    for one in wanted:
        assert sum(torch.equal(one, other) for other in shown) == 1
    assert torch.equal(shown[0], PATCHES)
    assert not any(one.data_ptr() == PATCHES.data_ptr() for one in shown)


@pytest.mark.parametrize("view", VIEWS["dihedral"])
def test_a_map_is_turned_back(view):
    assert torch.equal(view.back(view.of(PATCHES)), PATCHES)
    assert torch.equal(view.back(PATCHES[:, :, 0, 0]), PATCHES[:, :, 0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_patches_keep_their_layout(kind):
    last = PATCHES.contiguous(memory_format=torch.channels_last)
    for view in VIEWS[kind]:
        assert view.of(last).is_contiguous(memory_format=torch.channels_last)
        assert view.of(PATCHES).is_contiguous()


@pytest.mark.parametrize("kind", KINDS)
def test_mean_and_spread_of_plain_values(kind):
    seen = torch.stack([corner(x) for x in all_views(PATCHES)[: len(VIEWS[kind])]])
    values = load_model(corner, tta=kind)(PATCHES)
    torch.testing.assert_close(values[:, :3], seen.mean(0))
    spread = seen.var(0, unbiased=False).mean(1).sqrt()
    torch.testing.assert_close(values[:, 3], spread)
    assert values.shape == (3, 4)


def test_probabilities_are_averaged_not_logits():
    seen = torch.stack([logits(x).softmax(1) for x in all_views(PATCHES)[:4]])
    values = load_model(logits, activation="softmax", tta="flips")(PATCHES)
    mean = seen.mean(0)
    torch.testing.assert_close(values[:, :3], mean)
    torch.testing.assert_close(values[:, :3].sum(1), torch.ones(3))
    torch.testing.assert_close(
        values[:, 4], -(mean * mean.log()).sum(1) / torch.log(torch.tensor(3.0))
    )


def test_entropy_of_what_is_certain_and_of_what_is_not():
    certain = torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(entropy(certain, "softmax")[:, 0], torch.tensor([0.0, 1.0]))
    either = torch.tensor([[1.0], [0.5], [0.0]])
    torch.testing.assert_close(entropy(either, "sigmoid")[:, 0], torch.tensor([0.0, 1.0, 0.0]))
    assert entropy(torch.ones(2, 1), "softmax").eq(0).all()
    assert entropy(torch.full((1, 2), torch.nan), "softmax").isnan().all()


def test_a_model_that_is_sure_changes_by_no_bit():
    def mean(x):
        return x.amax((2, 3))

    for kind in KINDS:
        values = load_model(mean, tta=kind)(PATCHES)
        assert torch.equal(values[:, :3], mean(PATCHES))
        assert values[:, 3].eq(0).all()


def test_one_class_keeps_its_own_spread_and_the_entropy_of_all():
    names = ("a", "b", "c")
    every = load_model(logits, activation="softmax", tta="flips", names=names)(PATCHES)
    one = load_model(logits, activation="softmax", tta="flips", names=names, output="b")(PATCHES)
    assert torch.equal(one[:, 0], every[:, 1])
    assert torch.equal(one[:, 2], every[:, 4])
    seen = torch.stack([logits(x).softmax(1)[:, 1] for x in all_views(PATCHES)[:4]])
    torch.testing.assert_close(one[:, 1], seen.std(0, unbiased=False))


@pytest.mark.parametrize("kind", KINDS)
def test_dense_maps_are_turned_back(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
    values = load_model(net, tta=kind)(PATCHES)
    seen = torch.stack([view.back(net(view.of(PATCHES))) for view in VIEWS[kind]])
    torch.testing.assert_close(values[:, :2], seen.mean(0))
    plain = load_model(quarter_means, tta=kind)(PATCHES)
    torch.testing.assert_close(plain[:, :3], quarter_means(PATCHES))
    assert plain[:, 3].abs().max() < 1e-6


def test_features_are_those_of_the_window_as_it_is():
    def pair(x):
        return corner(x), x.flatten(1)

    values, features = load_model(pair, output=0, features=1, tta="flips").outputs(PATCHES)
    assert torch.equal(features, PATCHES.flatten(1))
    assert values.shape == (3, 4)


def test_a_model_that_changes_what_it_sees_spoils_no_other_view():
    def careless(x):
        value = corner(x).clone()
        x.zero_()
        return value

    before = PATCHES.clone()
    assert torch.equal(
        load_model(careless, tta="dihedral")(PATCHES), load_model(corner, tta="dihedral")(before)
    )
    assert torch.equal(PATCHES, before)


def test_windows_and_maps_that_cannot_be_turned():
    with pytest.raises(ModelRunError, match=r"8 x 4 px - choose tta='flips'"):
        load_model(corner, tta="dihedral")(PATCHES[..., :4])
    with pytest.raises(ModelOutputError, match=r"have 4 x 8 cells - choose tta='flips'"):
        load_model(lambda x: x[:, :, ::2], tta="dihedral")(PATCHES)
    assert load_model(corner, tta="flips")(PATCHES[..., :4]).shape == (3, 4)


def test_averaged_keeps_what_is_not_a_number():
    odd = torch.tensor([[torch.nan, 1.0]])
    values = averaged([odd, torch.ones(1, 2)], None)
    assert values[0, 0].isnan()
    assert values[0, 1] == 1
    assert values[0, 2].isnan()


@pytest.fixture(scope="module")
def slide():
    return noise_slide(96, 128)


def test_a_run_has_the_channels_and_says_what_they_are(slide):
    heatmap = wh.compute_heatmap(
        slide, logits, window=32, activation="softmax", tta="flips", names=["a", "b", "c"], **QUIET
    )
    assert heatmap.names == ("a", "b", "c", STD, ENTROPY)
    assert heatmap.uncertainty == (STD, ENTROPY)
    assert heatmap.run["model"]["tta"] == "flips"
    loop = load_model(logits, activation="softmax", tta="flips")
    np.testing.assert_allclose(heatmap.values, naive(heatmap, slide, loop), atol=1e-6)
    assert heatmap.classes().names == ("a", "b", "c")


def test_it_is_part_of_the_plan_and_kept_for_resuming(slide, tmp_path):
    out = tmp_path / "a.zarr"
    whole = wh.compute_heatmap(slide, "hematoxylin", window=32, tta="flips", **QUIET)
    pieces = wh.run(slide, "hematoxylin", window=32, tta="flips", out=out, **ALIKE)
    next(pieces)
    pieces.close()
    for other in ({}, {"tta": "dihedral"}):
        with pytest.raises(PlanMismatchError, match="tta"):
            wh.compute_heatmap(slide, "hematoxylin", window=32, out=out, **other, **QUIET)
    for _ in wh.resume(out, slide=slide).pieces():
        pass
    resumed = wh.open_heatmap(out)
    assert resumed.names == ("hematoxylin", STD)
    assert np.array_equal(resumed.values, whole.values)


def test_given_windows_have_them_as_well(slide, tmp_path):
    out = tmp_path / "list.zarr"
    where = [(0, 0), (17, 40), (60, 3)]
    values = wh.predict_windows(slide, corner, where, window=32, tta="dihedral", level=0, out=out)
    assert values.shape == (3, 4)
    assert wh.open_heatmap(out).uncertainty == (STD,)


def test_a_dense_run_blends_them(slide):
    heatmap = wh.compute_heatmap(slide, quarter_means, window=32, stride=16, tta="flips", **QUIET)
    assert heatmap.names[-1] == STD
    assert np.nanmax(np.abs(heatmap.values[-1])) < 1e-6
    plain = wh.compute_heatmap(slide, quarter_means, window=32, stride=16, **QUIET)
    np.testing.assert_allclose(heatmap.values[:3], plain.values, atol=1e-6)
