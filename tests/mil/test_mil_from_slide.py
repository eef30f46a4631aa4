"""Encoder and MIL model in one run: live, resumed, re-scored, kept."""

from __future__ import annotations

import json
from itertools import pairwise

import bags_made
import numpy as np
import pytest
import torch
from mil_made import LAYOUTS, D

import napari_wsi_heatmap as wh
from made import FaultySlide, noise_slide
from napari_wsi_heatmap.control import RunControl
from napari_wsi_heatmap.errors import (
    FeatureError,
    HeatmapError,
    ModelError,
    ModelRunError,
    StoreError,
)
from napari_wsi_heatmap.mil import (
    compute_mil,
    encode,
    live,
    open_mil,
    prepare_mil,
    read_features,
    run_mil,
    score_mil,
    sofar,
)
from napari_wsi_heatmap.mil.result import results_in
from napari_wsi_heatmap.states import DONE, FAILED, state_of

SETTINGS = {"window": 32, "stride": 32, "tissue": "none", "batch_size": 16, "device": "cpu"}
QUIET = SETTINGS | {"progress": False}
CLAM, MB, TRANSMIL, DSMIL = "clam_sb", "clam_mb", "transmil", "dsmil"


class Encoder(torch.nn.Module):
    """(N, 3, 32, 32) -> (N, 12): a small encoder with weights of its own."""

    window = 32

    def __init__(self, length=D):
        super().__init__()
        torch.manual_seed(3)
        self.conv = torch.nn.Conv2d(3, length, 8, stride=8)

    def forward(self, x):
        return torch.tanh(4 * self.conv(x)).mean((2, 3))


def slide():
    """Noise that is brighter to the lower right: patches differ."""
    from napari_wsi_heatmap.slides.array import ArraySlide

    base = noise_slide(400, 500).read_region(0, 0, 0, 400, 500).astype(np.float32)
    ramp = np.add.outer(np.arange(400) / 400, np.arange(500) / 500)[..., None] / 2
    return ArraySlide([(base * ramp).astype(np.uint8)], mpp=0.5, name="ramp")


@pytest.fixture
def checkpoint(tmp_path):
    def save(name):
        path = tmp_path / f"{name}.pt"
        torch.save(LAYOUTS[name][1](), path)
        return path

    return save


def load(path):
    return wh.load_mil(path, device="cpu")


def same(a, b):
    """Two bags, to the bit."""
    for name in ("logits", "probabilities", "scores", "weights", "patch_score"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert (a.prediction, a.branch, a.drawn) == (b.prediction, b.branch, b.drawn)
    assert (a.instance_logits is None) == (b.instance_logits is None)
    if a.instance_logits is not None:
        assert np.array_equal(a.instance_logits, b.instance_logits)


@pytest.mark.parametrize("name", [CLAM, MB, "abmil millab 3 heads", "abmil millab bare", TRANSMIL,
                                  DSMIL, "dsmil millab", "clam_sb one logit"])  # fmt: skip
def test_the_result_is_the_whole_bag_scored_at_once(tmp_path, checkpoint, name):
    stored = name in (CLAM, TRANSMIL, "dsmil millab", "abmil millab bare")
    out = tmp_path / "a.zarr" if stored else None
    mil = load(checkpoint(name))
    run = prepare_mil(slide(), Encoder(), mil, out=out, **SETTINGS)
    pieces = list(run.pieces())
    last, result = pieces[-1], run.result
    features = encode(slide(), Encoder(), **SETTINGS)
    assert len(features) == sum(map(len, pieces)) == 13 * 16
    same(result.bag, mil(features.features))
    assert last.result is result
    assert len(last) == 0
    assert np.array_equal(last.rescored[0], result.index)
    drawn = getattr(result.bag, result.bag.drawn)
    assert np.array_equal(run.scores.reshape(len(run.scores), -1).T[result.index], drawn)
    assert last.so_far.patches == last.so_far.planned == 13 * 16
    assert run.limits.of(0) == (drawn[:, 0].min(), drawn[:, 0].max())
    if stored:
        same(open_mil(out).bag, result.bag)


def test_raw_scores_come_with_their_patches(tmp_path, checkpoint):
    mil = load(checkpoint(MB))
    run = prepare_mil(slide(), Encoder(), mil, **SETTINGS)
    found = None
    for piece in run.pieces():
        if piece.result is None:
            assert piece.scores.shape == (len(piece), 3)
            assert np.array_equal(piece.positions, run.run.plan.grid.positions(piece.index))
            found = run.scores.copy()
            rows, cols = np.divmod(piece.index, 16)
            assert np.array_equal(found[:, rows, cols].T, piece.scores)
    # The whole bag at once: the same but for the last bits.
    np.testing.assert_allclose(found, run.scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [TRANSMIL, DSMIL])
def test_others_are_scored_again_as_the_bag_grows(checkpoint, name):
    clock = Clock()
    run = prepare_mil(slide(), Encoder(), load(checkpoint(name)), **SETTINGS)
    run._clock = clock
    rescored = []
    for piece in run.pieces():
        clock.now += 100
        assert piece.scores is None
        if piece.rescored is not None:
            rescored.append(piece)
    assert len(rescored) > 5
    for piece in rescored:
        index, scores = piece.rescored
        assert len(index) == len(scores) == piece.so_far.patches
        assert (np.diff(index) > 0).all()


class Clock:
    """Seconds that pass where a test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_what_scoring_so_far_costs_is_bounded():
    clock = Clock()
    intervals = sofar.Intervals(clock)
    spent, asked = 0.0, []
    for patches in range(10, 100_000, 10):
        clock.now += 0.05  # of encoding
        if intervals.due(patches):
            with intervals.scoring(patches):
                clock.now += patches * 1e-4  # a costly model
            spent += patches * 1e-4
            asked.append(patches)
            assert spent <= 0.1 * clock.now or len(asked) == 1
    assert len(asked) > 10
    assert all(b >= sofar.GROWTH * a for a, b in pairwise(asked))
    # A cheap one is asked whenever the bag has grown by a fifth.
    cheap = sofar.Intervals(clock)
    number = 0
    for patches in range(10, 100_000, 10):
        clock.now += 0.05
        if cheap.due(patches):
            with cheap.scoring(patches):
                clock.now += 1e-9
            number += 1
    assert 40 < number < 52  # log(10,000) / log(1.2) = 50.5


def iterate(run, clock):
    for _ in run.pieces():
        clock.now += 100


def test_memory_that_runs_out_before_the_end_costs_no_features(tmp_path, checkpoint, monkeypatch):
    out, mil = tmp_path / "a.zarr", load(checkpoint(TRANSMIL))
    run = prepare_mil(slide(), Encoder(), mil, out=out, **SETTINGS)
    net = mil._net.score

    def tight(x, attention):
        if len(x) > 40:
            raise RuntimeError("can't allocate memory: you tried to allocate 9 bytes")
        return net(x, attention)

    monkeypatch.setattr(mil._net, "score", tight)
    run._clock = clock = Clock()
    with pytest.raises(ModelRunError, match="memory ran out at 208 patches"):
        iterate(run, clock)
    assert run.so_far.patches <= 40
    assert any("no prediction so far any more" in n for n in run.record["notices"])
    assert len(read_features(out)) == 208
    monkeypatch.undo()
    same(score_mil(out, mil).bag, mil(read_features(out).features))


def test_a_run_whose_features_were_all_odd_goes_on(tmp_path, checkpoint):
    def encoder(batch):
        return batch.mean((2, 3)).repeat(1, 4) / (len(seen) >= 3)

    seen, model = [], wh.load_model(encoder, window=32)
    run = prepare_mil(slide(), model, checkpoint(CLAM), out=tmp_path / "a.zarr", **SETTINGS)
    stop_after(run, 2)
    seen += [1, 2, 3]
    result = compute_mil(slide(), model, checkpoint(CLAM), out=tmp_path / "a.zarr", **QUIET)
    assert 0 < len(result) < 208
    assert any("not finite: left out" in notice for notice in result.notices)


def test_the_prediction_so_far(checkpoint):
    seen = []
    for piece in run_mil(slide(), Encoder(), checkpoint(CLAM), **SETTINGS):
        if piece.so_far is not None and (not seen or seen[-1] is not piece.so_far):
            seen.append(piece.so_far)
    assert seen[0].patches < seen[-1].patches == 208
    assert 0 < seen[0].share < 1 == seen[-1].share
    for each in seen:
        assert each.prediction == each.probabilities.argmax()
        assert f"class {each.prediction} (p 0." in str(each)
        assert f"{100 * each.share:.0f} % of the bag" in str(each)


def test_another_checkpoint_takes_neither_slide_nor_encoder(tmp_path, checkpoint):
    out = tmp_path / "a.zarr"
    first = compute_mil(slide(), Encoder(), checkpoint(CLAM), out=out, **QUIET)
    other = score_mil(out, load(checkpoint(TRANSMIL)))
    features = read_features(out).features
    same(first.bag, load(checkpoint(CLAM))(features))
    same(other.bag, load(checkpoint(TRANSMIL))(features))
    nystrom = score_mil(out, load(checkpoint(TRANSMIL)), attention="nystrom")
    assert [p.name.partition("-")[0] for p in results_in(out)] == [
        "clam_sb",
        "transmil",
        "transmil",
    ]
    assert nystrom.path.stem == other.path.stem + "-nystrom"
    with pytest.raises(StoreError, match=r"keeps 3 results.*clam_sb-"):
        open_mil(out)
    for result in (first, other, nystrom):
        same(open_mil(result.path).bag, result.bag)
    # Scored again, it takes the place of what was there.
    again = score_mil(out, load(checkpoint(CLAM)))
    assert again.path == first.path
    assert len(results_in(out)) == 3


def test_a_branch_that_was_asked_for(tmp_path, checkpoint):
    mil = load(checkpoint(MB))
    result = compute_mil(slide(), Encoder(), mil, branch=2, out=tmp_path / "a.zarr", **QUIET)
    assert result.bag.branch == 2
    assert np.array_equal(result.patch_score, result.bag.scores[:, 2])
    kept = open_mil(tmp_path / "a.zarr")
    assert np.array_equal(kept.patch_score, result.patch_score)
    with pytest.raises(ModelError, match="no branch 3"):
        score_mil(tmp_path / "a.zarr", mil, branch=3)


def stop_after(run, pieces):
    going = run.pieces()
    for _ in range(pieces):
        next(going)
    going.close()


@pytest.mark.parametrize("name", [CLAM, TRANSMIL])
def test_a_stopped_run_is_continued_and_ends_the_same(tmp_path, checkpoint, name):
    out, path = tmp_path / "a.zarr", checkpoint(name)
    stop_after(prepare_mil(slide(), Encoder(), path, out=out, **SETTINGS), 5)
    with pytest.raises(StoreError, match="keeps 0 results"):
        open_mil(out)
    partly = score_mil(out, path, save=False)
    assert 0 < len(partly) < 208
    assert "not encoded yet" in partly.notices[0]
    rest = prepare_mil(slide(), Encoder(), path, out=out, **SETTINGS)
    pieces = list(rest.pieces())
    assert len(pieces[0]) == len(partly)
    assert sum(map(len, pieces)) == 208
    whole = compute_mil(slide(), Encoder(), path, **QUIET)
    same(rest.result.bag, whole.bag)
    same(open_mil(out).bag, whole.bag)


def test_what_is_encoded_is_only_scored(tmp_path, checkpoint):
    out, path = tmp_path / "a.zarr", checkpoint(CLAM)
    first = compute_mil(slide(), Encoder(), path, out=out, **QUIET)
    pieces = list(run_mil(slide(), Encoder(), path, out=out, **SETTINGS))
    assert len(pieces) == 1
    same(pieces[0].result.bag, first.bag)


def test_a_cancelled_run_has_no_result(tmp_path, checkpoint):
    control = RunControl()
    run = prepare_mil(
        slide(), Encoder(), checkpoint(CLAM), out=tmp_path / "a.zarr", control=control, **SETTINGS
    )
    for _ in run.pieces():
        control.cancel()
    assert run.result is None
    assert results_in(tmp_path / "a.zarr") == []
    control = RunControl()
    control.cancel()
    with pytest.raises(HeatmapError, match="cancelled"):
        compute_mil(slide(), Encoder(), checkpoint(CLAM), control=control, **QUIET)


def test_given_coordinates(tmp_path, checkpoint):
    coords = np.random.default_rng(1).integers(0, [360, 460], (50, 2))
    path = bags_made.write(
        tmp_path / "coords.h5", None, coords[:, ::-1], on_coords={"patch_size_level0": 40}
    )
    mil = load(checkpoint(TRANSMIL))
    settings = {"batch_size": 16, "device": "cpu"}
    result = compute_mil(
        slide(), Encoder(), mil, coords=path, out=tmp_path / "a.zarr", progress=False, **settings
    )
    assert np.array_equal(result.coords, coords)
    assert result.patch_size == (40.0, 40.0)
    features = encode(slide(), Encoder(), coords, patch_size=40, **settings)
    same(result.bag, mil(features.features))
    kept = open_mil(tmp_path / "a.zarr")
    same(kept.bag, result.bag)
    assert np.array_equal(kept.coords, coords)
    heatmap = wh.open_heatmap(kept.path)
    assert np.array_equal(heatmap.listed[:, 0], result.patch_score)
    with pytest.raises(FeatureError, match="patch_size is the size of windows at coordinates"):
        encode(slide(), Encoder(), patch_size=40, **SETTINGS)


def test_windows_that_fail_or_are_not_finite_are_left_out(tmp_path, checkpoint):
    class Odd(Encoder):
        def forward(self, x):
            y = super().forward(x)
            return torch.where(x[:, :1, 0, 0] < 0.02, torch.nan, y)

    bad = FaultySlide(slide(), bad={(200, 200)})
    out, mil = tmp_path / "a.zarr", load(checkpoint(CLAM))
    run = prepare_mil(bad, Odd(), mil, out=out, **SETTINGS)
    list(run.pieces())
    result = run.result
    odd = np.isnan(wh.open_heatmap(out).features[:]).any(2)
    assert 1 < odd.sum() < 100
    assert len(result) == (~odd).sum()
    same(result.bag, mil(read_features(out).features))
    assert any("could not be read: left out of the bag" in n for n in result.notices)
    assert any("not finite: left out of the bag" in n for n in result.notices)
    heatmap = wh.open_heatmap(result.path)
    assert np.array_equal(state_of(heatmap.state) == FAILED, odd)
    assert np.array_equal(np.isnan(heatmap.values[0]), odd)
    assert np.array_equal(open_mil(out).index, result.index)


def test_vectors_of_another_length_are_refused_before_the_run(tmp_path, checkpoint):
    with pytest.raises(FeatureError, match=r"features have 7 numbers.*trained on 12"):
        prepare_mil(slide(), Encoder(7), checkpoint(CLAM), out=tmp_path / "a", **SETTINGS)
    assert not (tmp_path / "a").exists()
    encode(slide(), Encoder(7), out=tmp_path / "a.zarr", **SETTINGS)
    with pytest.raises(FeatureError, match="features have 7 numbers"):
        score_mil(tmp_path / "a.zarr", checkpoint(CLAM))
    wh.compute_heatmap(slide(), "hematoxylin", out=tmp_path / "b.zarr", **QUIET)
    with pytest.raises(FeatureError, match="the store has no features"):
        score_mil(tmp_path / "b.zarr", checkpoint(CLAM))


@pytest.mark.parametrize("roi", [(0, 0, 32, 32), (0, 0, 32, 64), (0, 0, 96, 96)])
def test_few_patches(checkpoint, roi):
    features = encode(slide(), Encoder(), roi=roi, **SETTINGS)
    for name in (CLAM, TRANSMIL):
        mil = load(checkpoint(name))
        result = compute_mil(slide(), Encoder(), mil, roi=roi, **QUIET)
        assert len(result) == roi[2] * roi[3] // 1024
        same(result.bag, mil(features.features))


def test_the_record_says_where_it_comes_from(tmp_path, checkpoint):
    out, path = tmp_path / "a.zarr", checkpoint("dsmil millab")
    result = compute_mil(slide(), Encoder(), path, out=out, **QUIET)
    record = json.loads((result.path / "run.json").read_text())
    mil, encoder = record["mil"], wh.open_heatmap(out).run
    assert mil["prediction"] == result.prediction
    assert mil["probabilities"] == result.probabilities.tolist()
    said = mil["provenance"]
    assert said["mil"]["sha256"] == load(path).sha256
    assert (said["mil"]["type"], said["mil"]["layout"]) == ("dsmil", "MIL-Lab")
    assert said["mil"]["attention"] == "attention"
    assert "critical patch" in said["mil"]["definition"]
    assert said["features"]["plan_sha256"] == encoder["plan_sha256"]
    assert said["features"]["encoder_sha256"] == encoder["model"]["sha256"]
    assert said["features"]["slide_fingerprint"] == slide().fingerprint
    assert said["features"]["patches"] == 208
    names = (
        "score",
        "attention 0",
        "attention 1",
        "weight 0",
        "weight 1",
        "instance 0",
        "instance 1",
    )
    assert tuple(record["model"]["names"]) == names


def test_a_result_is_a_heatmap_that_exports(tmp_path, checkpoint):
    out = tmp_path / "a.zarr"
    result = compute_mil(slide(), Encoder(), checkpoint(CLAM), out=out, **QUIET)
    heatmap = result.heatmap()
    assert (state_of(heatmap.state) == DONE).all()
    assert np.array_equal(heatmap.values[0].ravel(), result.patch_score)
    h5py = pytest.importorskip("h5py")
    with h5py.File(heatmap.export(tmp_path / "b.h5")) as file:
        assert np.array_equal(file["attention_scores"][:, 0], result.patch_score)
        assert np.array_equal(file["coords"][:][:, ::-1], result.coords)
    heatmap.export(tmp_path / "b.png", slide=slide())
    assert len(heatmap.to_dataframe()) == 208


def test_features_of_a_file_are_scored_and_saved(tmp_path, checkpoint):
    path, mil = bags_made.trident(tmp_path / "a.h5"), load(checkpoint(CLAM))
    result = score_mil(path, mil)
    same(result.bag, mil(read_features(path).features))
    assert result.provenance["features"]["encoder"] == "uni_v1"
    with pytest.raises(StoreError, match="nothing says on which slide"):
        result.save(tmp_path / "b.zarr")
    wide = noise_slide(3000, 4000)
    saved = result.save(tmp_path / "b.zarr", wide)
    same(open_mil(tmp_path / "b.zarr").bag, result.bag)
    assert np.array_equal(open_mil(saved.path).coords, result.coords)
    assert wh.open_heatmap(saved.path).window_size == (512, 512)


def test_a_killed_save_leaves_the_old_result_or_the_new_one(tmp_path, checkpoint, monkeypatch):
    from napari_wsi_heatmap.mil import resultstore

    out = tmp_path / "a.zarr"
    first = compute_mil(slide(), Encoder(), checkpoint(CLAM), out=out, **QUIET)

    class Killed(BaseException):
        pass

    def kill(*args):
        raise Killed

    replace = resultstore.os.replace
    for steps in (0, 1):
        done = []

        def counted(source, target, done=done, steps=steps):
            if len(done) == steps:
                kill()
            done.append(1)
            replace(source, target)

        monkeypatch.setattr(resultstore.os, "replace", counted)
        monkeypatch.setattr(resultstore.shutil, "rmtree", lambda *a, **k: None)
        with pytest.raises(Killed):
            score_mil(out, checkpoint(CLAM))
        monkeypatch.undo()
        result = score_mil(out, checkpoint(CLAM))
        same(open_mil(out).bag, first.bag)
        left = sorted(p.name for p in (out / "mil").iterdir())
        assert left == [".lock", result.path.name]


def test_the_golden_checkpoints(data_dir, tmp_path):
    folder = data_dir / "mil"
    index = json.loads((folder / "index.json").read_text())
    for name in ("millab_abmil_gated_c2", "clam_mb_gated_drop_tiny_c2", "millab_dsmil_c2",
                 "transmil_orig_dim32_c2_n37"):  # fmt: skip
        golden = np.load(folder / f"{index[name].get('arrays_from') or name}.npz")
        path = bags_made.write(
            tmp_path / f"{name}.h5", golden["features"][None], golden["coords"],
            on_coords={"patch_size": 256, "patch_level": 0},
        )  # fmt: skip
        result = score_mil(path, folder / f"{name}.pt")
        np.testing.assert_allclose(
            result.patch_score,
            golden["patch_score"],
            rtol=1e-4,
            atol=1e-4 * abs(golden["patch_score"]).max(),
        )
        assert np.array_equal(result.coords, golden["coords"][:, ::-1])
        assert result.patch_size == (256.0, 256.0)
        assert live.MilPiece(result.index, result.coords, np.zeros(0, np.uint8)).result is None
