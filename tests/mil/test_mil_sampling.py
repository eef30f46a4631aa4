"""Which patches are sampled, and what the tables and files of a slide hold."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

from napari_wsi_heatmap.errors import ExportError
from napari_wsi_heatmap.mil.blockmap import read_scores, write_blockmap
from napari_wsi_heatmap.mil.config import Sample
from napari_wsi_heatmap.mil.results import Result, write_failed, write_results
from napari_wsi_heatmap.mil.sampling import chosen_patches
from napari_wsi_heatmap.mil.scored import Scored
from napari_wsi_heatmap.mil.slidepictures import about_uniform
from napari_wsi_heatmap.models.mil.bag import Bag, prediction_of, probabilities_of

SCORES = np.random.default_rng(5).normal(size=200).astype(np.float32)


def sample(mode, k=9, seed=1, start=0.0, end=1.0):
    return Sample("s", True, mode, k, seed, start, end)


# R5, R20


def test_the_highest_and_the_lowest_in_order():
    order = np.argsort(SCORES)
    assert chosen_patches(SCORES, sample("topk")).tolist() == order[::-1][:9].tolist()
    assert chosen_patches(SCORES, sample("bottomk")).tolist() == order[:9].tolist()


def test_equal_scores_as_they_stand():
    assert chosen_patches(np.zeros(5), sample("topk", 3)).tolist() == [0, 1, 2]
    assert chosen_patches(np.zeros(5), sample("bottomk", 3)).tolist() == [0, 1, 2]


def test_no_more_than_there_are():
    for mode in ("topk", "bottomk", "range"):
        assert len(chosen_patches(SCORES[:4], sample(mode, 100))) == 4


def test_a_range_of_ranks_as_fractions():
    ranks = SCORES.argsort().argsort() + 1
    chosen = chosen_patches(SCORES, sample("range", start=0.45, end=0.55))
    assert len(set(chosen.tolist())) == 9
    assert ((ranks[chosen] >= 90) & (ranks[chosen] <= 110)).all()
    assert (np.diff(SCORES[chosen]) < 0).all()
    with pytest.raises(ExportError, match=r"no patch has a rank in 0\.001…0\.002"):
        chosen_patches(SCORES, sample("range", start=0.001, end=0.002))


def test_the_seed_decides_within_a_range():
    first, again, other = (
        chosen_patches(SCORES, sample("range", seed=seed)).tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_clams_own_choices(data_dir):
    path = data_dir / "mil" / "heatmap_clam.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    golden = np.load(path)
    seen = 0
    for tag in ("s64", "s48", "s32"):
        for mode, ours in (("topk", "topk"), ("reverse_topk", "bottomk")):
            key = f"{tag}_{mode}_coords"
            if key in golden:
                chosen = chosen_patches(golden[f"{tag}_scores"], sample(ours))
                np.testing.assert_array_equal(golden[f"{tag}_coords"][chosen], golden[key])
                seen += 1
    assert seen > 0


# R26


def test_blockmap_has_the_types_of_the_guide(tmp_path):
    coords = np.array([[512.4, 256], [70000, 3]])
    scored = Scored(coords, np.array([0.5, -2], np.float64), (256.0, 256.0))
    write_blockmap(tmp_path / "a_blockmap.h5", scored)
    with h5py.File(tmp_path / "a_blockmap.h5") as file:
        assert set(file) == {"attention_scores", "coords"}
        scores, places = file["attention_scores"], file["coords"]
        assert (scores.dtype, scores.shape) == (np.float32, (2, 1))
        assert (places.dtype, places.shape) == (np.int32, (2, 2))
        assert scores.maxshape == (None, 1)
        assert places[:].tolist() == [[256, 512], [3, 70000]]
        assert places.attrs["patch_size_level0"] == 256
    back, values = read_scores(tmp_path / "a_blockmap.h5")
    assert back.tolist() == [[512, 256], [70000, 3]]
    assert values.tolist() == [0.5, -2]
    with pytest.raises(ExportError, match="far beyond"):
        write_blockmap(tmp_path / "b.h5", Scored(coords * 1e6, scored.scores, (1.0, 1.0)))


# R28 to R31


def bag(logits, exclusive=True, n=7):
    logits = np.array(logits, np.float32)
    probabilities = probabilities_of(logits, exclusive=exclusive)
    empty = np.zeros((n, 1), np.float32)
    return Bag(logits, probabilities, empty, empty, prediction_of(logits), 0, "scores")


def test_the_table_of_results(tmp_path):
    path = tmp_path / "results.csv"
    bags = {"007": bag([2, 1]), "b, c": bag([0, 3], n=12)}
    write_results(path, [Result.of(name, "normal", one) for name, one in bags.items()])
    table = pd.read_csv(path, dtype={"slide_id": str})
    assert list(table) == [
        "slide_id", "label", "bag_size", "Pred_0", "Pred_1", "p_0", "p_1", "Y_hat", "prediction",
    ]  # fmt: skip
    assert table["slide_id"].tolist() == ["007", "b, c"]
    assert table["bag_size"].tolist() == [7, 12]
    np.testing.assert_array_equal(table["Pred_0"], [0, np.nan])
    np.testing.assert_array_equal(table["Pred_1"], [np.nan, 1])
    for c in (0, 1):
        ours = [one.probabilities[c] for one in bags.values()]
        np.testing.assert_array_equal(table[f"p_{c}"].to_numpy(np.float32), ours)
    assert table["Y_hat"].tolist() == table["prediction"].tolist() == [0, 1]


@pytest.mark.parametrize(("logit", "hat"), [(-0.1, 0), (0.0, 1), (0.1, 1)])
def test_one_logit_judges_two_classes(tmp_path, logit, hat):
    write_results(tmp_path / "r.csv", [Result.of("a", "l", bag([logit]))])
    (row,) = pd.read_csv(tmp_path / "r.csv").to_dict("records")
    p = 1 / (1 + np.exp(-logit))
    assert row["p_1"] == pytest.approx(p, rel=1e-6)
    assert row["p_0"] == pytest.approx(1 - p, rel=1e-6)
    assert (row["Y_hat"], row["prediction"], row[f"Pred_{hat}"]) == (hat, hat, hat)


def test_without_a_classifier_the_prediction_is_none(tmp_path):
    write_results(tmp_path / "r.csv", [Result.of("a", "l", bag([]))])
    assert (tmp_path / "r.csv").read_text() == (
        "slide_id,label,bag_size,Y_hat,prediction\na,l,7,,none\n"
    )


def test_classes_that_do_not_exclude_each_other(tmp_path):
    write_results(tmp_path / "r.csv", [Result.of("a", "l", bag([1, 2, -3], exclusive=False))])
    (row,) = pd.read_csv(tmp_path / "r.csv").to_dict("records")
    assert row["p_0"] + row["p_1"] + row["p_2"] > 1.5
    assert row["Y_hat"] == 1


def test_a_result_comes_back_from_its_record():
    result = Result.of("a", "l", bag([2, 1]))
    assert Result.from_json(result.to_json()) == result


def test_the_table_of_failures_is_there_only_if_there_are_some(tmp_path):
    path = tmp_path / "failed.csv"
    write_failed(path, {"a": "no such file, sorry"})
    assert pd.read_csv(path).to_dict("records") == [
        {"slide_id": "a", "error": "no such file, sorry"}
    ]
    write_failed(path, {})
    assert not path.exists()


def test_attention_about_uniform():
    alike = Scored(np.zeros((4, 2)), np.zeros(4, np.float32), (1.0, 1.0))
    assert about_uniform(alike).tolist() == [0.5] * 4
    weights = Scored(np.zeros((4, 2)), np.float32([0.5, 0.25, 0.125, 0.125]), (1.0, 1.0), True)
    assert about_uniform(weights).tolist() == [1.0, 0.5, 0.25, 0.25]
