"""Every wrapper that training scripts put around a state dict, and files that are refused."""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import PosixPath

import numpy as np
import pytest
import torch
from mil_made import LAYOUTS, clam, features, millab_abmil, transmil, trident

import napari_wsi_heatmap as wh
from napari_wsi_heatmap.errors import ModelError, ModelLoadError, ModelRunError


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def lightning(state):
    metrics = {"loss.weight": torch.ones(2), "AUROC.preds": torch.zeros(0, dtype=torch.int64)}
    inside = prefixed(state, "model.") | metrics | {"valid_metrics.confmat": torch.zeros(2, 2)}
    return {"epoch": 3, "state_dict": inside, "hyper_parameters": {"log": PosixPath("logs")},
            "pytorch-lightning_version": "1.5.10", "optimizer_states": [{"state": {}}]}  # fmt: skip


def trainer(state):
    best = np.float64(0.9)
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    return {"model_state_dict": prefixed(state, "model."), "optimizer_state_dict": optimizer,
            "best_val_metric": best, "history": {"loss": [best]}}  # fmt: skip


def parallel_clam(state):
    renamed = {k.replace("attention_net.", "attention_net.module.", 1): v for k, v in state.items()}
    return renamed | {"instance_loss_fn.labels": torch.tensor([0, 1])}


WRAPPED = {
    "bare": lambda s: s,
    "ordered": OrderedDict,
    "model": lambda s: {"model": s, "epoch": 1},
    "net": lambda s: {"net": s},
    "weights": lambda s: {"weights": s},
    "ema": lambda s: {"state_dict_ema": s, "epoch": 2},
    "model_ema": lambda s: {"model_ema": prefixed(s, "module.")},
    "state_dict in model": lambda s: {"model": {"state_dict": s}},
    "module": lambda s: prefixed(s, "module."),
    "model.": lambda s: prefixed(s, "model."),
    "model.model.": lambda s: prefixed(s, "model.model."),
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "all": lambda s: {"state_dict": prefixed(s, "module.model._orig_mod.")},
    "lightning": lightning,
    "trainer": trainer,
    "parameters": lambda s: {k: torch.nn.Parameter(v) for k, v in s.items()},
    "doubles": lambda s: {k: v.double() for k, v in s.items()},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("name", ["abmil millab", "abmil trident", "clam_mb", "transmil", "dsmil"])
def test_wrappers(tmp_path, name, wrapper, zipped):
    state, x = LAYOUTS[name][1](), features(20)
    torch.save(state, tmp_path / "bare.pt")
    path = tmp_path / "wrapped.ckpt"
    torch.save(WRAPPED[wrapper](state), path, _use_new_zipfile_serialization=zipped)
    one = wh.load_mil(tmp_path / "bare.pt", device="cpu")
    other = wh.load_mil(path, device="cpu")
    assert other.facts == one.facts
    assert (other(x).logits == one(x).logits).all()
    assert (other(x).patch_score == one(x).patch_score).all()


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("branches", [1, 3])
def test_dataparallel_of_clam(tmp_path, branches, gated):
    state, x = clam(branches, gated=gated), features(20)
    torch.save(state, tmp_path / "a.pt")
    torch.save(parallel_clam(state), tmp_path / "b.pt")
    one, other = (wh.load_mil(tmp_path / f"{n}.pt", device="cpu") for n in "ab")
    assert other.facts == one.facts
    assert (other(x).scores == one(x).scores).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_safetensors(tmp_path, name):
    safetensors = pytest.importorskip("safetensors.torch")
    state, x = LAYOUTS[name][1](), features(20)
    torch.save(state, tmp_path / "a.pt")
    safetensors.save_file(prefixed(state, "model."), str(tmp_path / "model.safetensors"))
    one = wh.load_mil(tmp_path / "a.pt", device="cpu")
    other = wh.load_mil(tmp_path / "model.safetensors", device="cpu")
    assert (other(x).patch_score == one(x).patch_score).all()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_tensor_counts(tmp_path, name):
    """One missing, one renamed, one too many or of another shape: each is refused by its name."""
    state = LAYOUTS[name][1]()
    path = tmp_path / "a.pt"
    spare = "instance_classifiers.", "i_classifier.feature_extractor.", "b_classifier.fcc."
    for key in state:
        if any(part in key for part in spare) and name != "dsmil":
            continue
        others = {k: v for k, v in state.items() if k != key}
        short = key.removeprefix("feature_encoder.model.")
        for broken in (others, others | {f"{key}x": state[key]}):
            torch.save(broken, path)
            with pytest.raises(ModelLoadError):
                wh.load_mil(path, device="cpu")
        torch.save(others | {key: torch.zeros(7, 7, 7, 7, 7)}, path)
        with pytest.raises(ModelLoadError, match=short.replace(".", r"\.")):
            wh.load_mil(path, device="cpu")
    torch.save(state | {"head.weight": torch.zeros(2)}, path)
    with pytest.raises(ModelLoadError, match=r"not expected: head\.weight"):
        wh.load_mil(path, device="cpu")


def refused(tmp_path, content, **claims):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelLoadError) as caught:
        wh.load_mil(tmp_path / "a.pt", device="cpu", **claims)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_refused(tmp_path):
    state = clam()
    assert "conv1.weight" in refused(tmp_path, {"conv1.weight": torch.zeros(2, 2)})
    assert "no weights" in refused(tmp_path, {"state_dict": {}, "epoch": 1})
    assert "no weights" in refused(tmp_path, {"epoch": 1})
    assert "list" in refused(tmp_path, [torch.zeros(2)])
    assert "Tensor" in refused(tmp_path, torch.zeros(2))
    nan = state | {"classifiers.bias": torch.full((3,), torch.nan)}
    assert "classifiers.bias in it holds NaN" in refused(tmp_path, nan)
    whole = state | {"classifiers.bias": torch.zeros(3, dtype=torch.int64)}
    assert "whole numbers" in refused(tmp_path, whole)
    sparse = state | {"classifiers.weight": torch.zeros(3, 10).to_sparse()}
    assert "sparse" in refused(tmp_path, sparse)
    twice = prefixed(trident(), "") | {"post_attention_layers.0.weight": torch.zeros(12, 12)}
    assert "one name" in refused(tmp_path, twice)
    assert "heads of 8 numbers" in refused(tmp_path, transmil(heads=3))


def test_no_file(tmp_path):
    with pytest.raises(ModelLoadError, match="no such model file"):
        wh.load_mil(tmp_path / "none.pt")
    with pytest.raises(ModelLoadError, match="folder"):
        wh.load_mil(tmp_path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_damaged_files(tmp_path, zipped):
    path = tmp_path / "a.pt"
    torch.save(clam(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 25):
        path.write_bytes(content[:length])
        with pytest.raises(ModelLoadError):
            wh.load_mil(path)


CLAIMS = {
    "model_type": ("clam_mb", "clam_sb"), "in_dim": (1024, 12), "n_classes": (2, 3),
    "heads": (8, 1), "gated": (False, True),
}  # fmt: skip


@pytest.mark.parametrize("name", CLAIMS)
def test_what_is_stated_and_wrong(tmp_path, name):
    wrong, right = CLAIMS[name]
    message = refused(tmp_path, clam(), **{name: wrong})
    assert str(wrong) in message
    assert str(right) in message
    assert wh.load_mil(tmp_path / "a.pt", device="cpu", **{name: right}).notices == ()


def test_stated_without_harm(tmp_path, caplog):
    torch.save(clam(), tmp_path / "a.pt")
    with caplog.at_level(logging.WARNING):
        mil = wh.load_mil(tmp_path / "a.pt", attention_dim=256, dropout=0.25, model_type="CLAM-SB")
    assert mil.notices == ("attention_dim is given as 256; the checkpoint has 6",)
    assert "attention_dim" in caplog.text
    assert mil.facts.attention_dim == 6


def test_one_logit_judges_two_classes(tmp_path):
    torch.save(trident(), tmp_path / "a.pt")
    mil = wh.load_mil(tmp_path / "a.pt", n_classes=2, model_type="abmil", device="cpu")
    bag = mil(features(5))
    assert bag.logits.shape == (1,)
    assert bag.probabilities.shape == (2,)
    assert bag.prediction == int(bag.probabilities[1] >= 0.5)
    refused(tmp_path, trident(), n_classes=3)


def test_no_classifier_is_no_random_one(tmp_path):
    torch.save(millab_abmil(classes=0), tmp_path / "a.pt")
    mil = wh.load_mil(tmp_path / "a.pt", n_classes=2, device="cpu")
    assert mil(features(5)).prediction is None
    assert "no classifier" in repr(mil)


def test_unknown_names(tmp_path):
    assert "no MIL type" in refused(tmp_path, clam(), model_type="meanmil")
    assert "no attention" in refused(tmp_path, clam(), attention="nystrom")
    torch.save(clam(), tmp_path / "a.pt")
    with pytest.raises(ModelError, match="no device"):
        wh.load_mil(tmp_path / "a.pt", device="abacus")


@pytest.fixture
def mil(tmp_path):
    torch.save(clam(3), tmp_path / "a.pt")
    return wh.load_mil(tmp_path / "a.pt", device="cpu")


WRONG = {
    "length": (np.zeros((5, 1024), np.float32), "1024 numbers .*uni_v1.* trained on 12"),
    "one vector": (np.zeros(12, np.float32), r"shape \(12,\)"),
    "two bags": (np.zeros((2, 5, 12), np.float32), r"\(2, 5, 12\)"),
    "none": (np.zeros((0, 12), np.float32), r"\(0, 12\)"),
    "text": ("features", "no array"),
    "complex": (np.zeros((5, 12), np.complex64), "complex"),
    "nan": (np.full((5, 12), np.nan, np.float32), "5 of 5 feature vectors hold NaN"),
}


@pytest.mark.parametrize("case", WRONG)
def test_features_that_do_not_fit(mil, case):
    given, message = WRONG[case]
    with pytest.raises(ModelError, match=message) as caught:
        mil(given)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_the_first_patch_that_is_not_finite_is_named(mil):
    x = features(50)
    x[[7, 9], 3] = np.inf
    with pytest.raises(ModelError, match=r"2 of 50 .* patch 7"):
        mil(x)


def test_features_of_all_kinds(mil):
    x = features(20)
    want = mil(x)
    for same in (
        torch.from_numpy(x),
        x[None],
        x.astype(np.float64),
        x.tolist(),
        x[:, ::-1][:, ::-1],
    ):
        assert (mil(same).scores == want.scores).all()
    half = mil(x.astype(np.float16))
    assert half.scores.dtype == np.float32
    assert (mil(torch.from_numpy(x).half()).scores == half.scores).all()


def test_a_branch_that_is_not(mil):
    with pytest.raises(ModelError, match="no branch 3"):
        mil(features(5), branch=3)
    with pytest.raises(ModelError, match="no branch -1"):
        mil(features(5)).score_of(-1)


def test_memory_that_runs_out_is_said(mil, monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(mil._net, "score", no_memory)
    with pytest.raises(ModelRunError, match="memory ran out at 5 patches"):
        mil(features(5))
