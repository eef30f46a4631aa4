"""Checkpoints of MIL models with random weights, in every layout.

``LAYOUTS[name]`` is (type, maker of the state dict, formula).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from mil_formulas import (
    KERNEL,
    amlab_formula,
    clam_formula,
    dsmil_formula,
    layer_names,
    millab_abmil_formula,
    millab_dsmil_formula,
    transmil_formula,
    trident_formula,
)

D, H, A = 12, 10, 6


def filled(shapes, seed=0):
    """Random weights of these shapes; a layer of (out, in) gets a bias unless it says no."""
    random = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes.items():
        bias = not name.endswith("!")
        key = name.rstrip("!")
        if key == "cls_token":
            state[key] = random.standard_normal(shape)
            continue
        scale = 1 if len(shape) == 1 else 1.5 / math.sqrt(math.prod(shape[1:]))
        state[f"{key}.weight"] = random.standard_normal(shape) * scale
        if len(shape) == 1:
            state[f"{key}.weight"] = 1 + 0.1 * state[f"{key}.weight"]
        if bias:
            state[f"{key}.bias"] = 0.1 * random.standard_normal(shape[:1])
    return {k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in state.items()}


def attention_shapes(place, branches, gated, second=3):
    if gated:
        return {
            f"{place}.attention_a.0": (A, H), f"{place}.attention_b.0": (A, H),
            f"{place}.attention_c": (branches, A),
        }  # fmt: skip
    return {f"{place}.module.0": (A, H), f"{place}.module.{second}": (branches, A)}


def instance_shapes(classes):
    return {f"instance_classifiers.{c}": (2, H) for c in range(classes)}


def millab_abmil(gated=True, heads=1, classes=3, deep=False, clam=False):
    shapes = {"patch_embed.0": (H, D)} | ({"patch_embed.3": (H, H)} if deep else {})
    shapes |= attention_shapes("global_attn", heads, gated)
    shapes |= {"classifier": (classes, H * heads)} if classes else {}
    return filled(shapes | (instance_shapes(classes) if clam else {}))


def amlab(gated=True):
    if gated:
        shapes = {"attention_V.0": (A, D), "attention_U.0": (A, D), "attention_w": (1, A)}
    else:
        shapes = {"attention.0": (A, D), "attention.2": (1, A)}
    return filled(shapes | {"classifier.0": (1, D)})


def trident(heads=2, gated=True):
    model = "feature_encoder.model."
    pooler = f"{model}image_pooler."
    shapes = {f"{model}pre_attention_layers.0": (D, D), f"{model}post_attention_layers.0": (D, D)}
    for h in range(heads):
        shapes[f"{pooler}attention_heads.{h}.0"] = (A, D)
        shapes[f"{pooler}branching_layers.{h}"] = (1, A)
        if gated:
            shapes[f"{pooler}gating_layers.{h}.0"] = (A, D)
    if heads > 1:
        shapes[f"{pooler}condensing_layer"] = (D, D * heads)
    return filled(shapes | {"classifier.0": (5, D), "classifier.2": (1, 5)})


def clam(branches=1, gated=True, at=3, second=3, classes=3):
    shapes = {"attention_net.0": (H, D)}
    shapes |= attention_shapes(f"attention_net.{at}", branches, gated, second)
    if branches > 1:
        shapes |= {f"classifiers.{c}": (1, H) for c in range(branches)}
    else:
        shapes |= {"classifiers": (classes, H)}
    return filled(shapes | instance_shapes(classes))


def dsmil(deep=True, passing=False, classes=2, backbone=False):
    c = "i_classifier.fc" if backbone else "i_classifier.fc.0"
    shapes = {c: (classes, D), "b_classifier.fcc": (classes, classes, D)}
    if deep:
        shapes |= {"b_classifier.q.0": (A, D), "b_classifier.q.2": (A, A)}
    else:
        shapes |= {"b_classifier.q": (A, D)}
    shapes |= {"b_classifier.v.1": (D, D)} if passing else {}
    shapes |= {"i_classifier.feature_extractor.0": (4, 3, 7, 7)} if backbone else {}
    return filled(shapes)


def millab_dsmil(classes=2):
    return filled({
        "patch_embed.0": (H, D), "i_classifier.inst_classifier": (classes, H),
        "b_classifier.q": (A, H), "b_classifier.v.1": (H, H), "b_classifier.norm": (H,),
        "b_classifier.fcc": (3, 3, H), "classifier": (classes, classes, H),
    })  # fmt: skip


DIM = 8


def transmil(millab=False, heads=2, classes=2, inner=DIM):
    embed, fc = ("patch_embed.0", "classifier") if millab else ("_fc1.0", "_fc2")
    shapes = {"cls_token": (1, 1, DIM), embed: (DIM, D), "norm": (DIM,)}
    shapes |= {fc: (classes, DIM)} if classes else {}
    for name, k in (("proj", 7), ("proj1", 5), ("proj2", 3)):
        shapes[f"pos_layer.{name}"] = (DIM, 1, k, k)
    for n in (0, 1):
        layer, attn = layer_names(millab, n)
        shapes |= {
            f"{layer}.norm": (DIM,), f"{attn}.to_qkv!": (3 * inner, DIM),
            f"{attn}.to_out.0": (DIM, inner), f"{attn}.res_conv!": (heads, 1, KERNEL, 1),
        }  # fmt: skip
    return filled(shapes)


def _row(kind, formula, maker, *made, **options):
    return kind, lambda: maker(*made, **options), formula


LAYOUTS = {
    "abmil millab": _row("abmil", millab_abmil_formula, millab_abmil),
    "abmil millab ungated": _row("abmil", millab_abmil_formula, millab_abmil, gated=False),
    "abmil millab 3 heads": _row("abmil", millab_abmil_formula, millab_abmil, heads=3),
    "abmil millab 2 layers": _row("abmil", millab_abmil_formula, millab_abmil, deep=True),
    "abmil millab bare": _row("abmil", millab_abmil_formula, millab_abmil, classes=0),
    "abmil amlab": _row("abmil", amlab_formula, amlab),
    "abmil amlab ungated": _row("abmil", amlab_formula, amlab, gated=False),
    "abmil trident": _row("abmil", trident_formula, trident),
    "abmil trident ungated": _row("abmil", trident_formula, trident, 1, gated=False),
    "clam_sb": _row("clam_sb", clam_formula, clam),
    "clam_sb ungated": _row("clam_sb", clam_formula, clam, gated=False),
    "clam_sb old": _row("clam_sb", lambda w, x: clam_formula(w, x, at=2), clam, at=2),
    "clam_sb one logit": _row("clam_sb", clam_formula, clam, classes=1),
    "clam_sb millab": _row("clam_sb", millab_abmil_formula, millab_abmil, clam=True),
    "clam_mb": _row("clam_mb", clam_formula, clam, 3),
    "clam_mb no dropout": _row(
        "clam_mb", lambda w, x: clam_formula(w, x, second=2), clam, 3, gated=False, second=2
    ),
    "dsmil": _row("dsmil", dsmil_formula, dsmil),
    "dsmil linear passing": _row("dsmil", dsmil_formula, dsmil, deep=False, passing=True),
    "dsmil one class": _row("dsmil", dsmil_formula, dsmil, classes=1),
    "dsmil backbone": _row("dsmil", dsmil_formula, dsmil, backbone=True),
    "dsmil millab": _row("dsmil", millab_dsmil_formula, millab_dsmil),
    "transmil": _row("transmil", transmil_formula, transmil),
    "transmil millab": _row("transmil", transmil_formula, transmil, millab=True, heads=4),
    "transmil bare": _row("transmil", transmil_formula, transmil, classes=0),
    "transmil wide heads": _row("transmil", transmil_formula, transmil, inner=16),
}  # fmt: skip


def features(n, seed=1, length=D):
    return np.random.default_rng(seed).standard_normal((n, length)).astype(np.float32)
