"""The papers' formulas of the MIL models, written out for the tests.

In NumPy, in float64, without any line of the package: slow and plain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

KERNEL = 33


@dataclass
class Expected:
    """What a formula says: logits, scores and weights (N, K), patch_score for each column."""

    logits: np.ndarray | None
    scores: np.ndarray
    weights: np.ndarray
    drawn: str = "scores"
    sigmoid: bool = False
    instances: np.ndarray | None = None
    rows: dict = field(default_factory=dict)

    @property
    def probabilities(self):
        if self.logits is None:
            return np.zeros(0)
        if len(self.logits) == 1:
            p = 1 / (1 + math.exp(-self.logits[0]))
            return np.array([1 - p, p])
        return 1 / (1 + np.exp(-self.logits)) if self.sigmoid else softmax(self.logits)


def softmax(x, axis=0):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def relu(x):
    return np.maximum(x, 0)


def norm(x, w):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w.weight + w.bias


@dataclass
class Layer:
    weight: np.ndarray
    bias: np.ndarray | None

    def __call__(self, x):
        return x @ self.weight.T + (0 if self.bias is None else self.bias)


class Weights:
    """A state dict, read one layer at a time."""

    def __init__(self, state):
        self._state = {k: v.double().numpy() for k, v in state.items()}

    def __getitem__(self, name):
        return Layer(self._state[f"{name}.weight"], self._state.get(f"{name}.bias"))

    def raw(self, name):
        return self._state[name]

    def __contains__(self, name):
        return f"{name}.weight" in self._state


def attention(w, place, h, second=3):
    if f"{place}.attention_a.0" in w:
        t = np.tanh(w[f"{place}.attention_a.0"](h)) * sigmoid(w[f"{place}.attention_b.0"](h))
        return w[f"{place}.attention_c"](t)
    return w[f"{place}.module.{second}"](np.tanh(w[f"{place}.module.0"](h)))


def millab_abmil_formula(w, x):
    h = relu(w["patch_embed.0"](x))
    h = relu(w["patch_embed.3"](h)) if "patch_embed.3" in w else h
    raw = attention(w, "global_attn", h)
    weights = softmax(raw)
    bag = np.concatenate([weights[:, k] @ h for k in range(raw.shape[1])])
    logits = w["classifier"](bag) if "classifier" in w else None
    return Expected(logits, raw.mean(1, keepdims=True), weights.mean(1, keepdims=True))


def amlab_formula(w, x):
    if "attention_V.0" in w:
        raw = w["attention_w"](np.tanh(w["attention_V.0"](x)) * sigmoid(w["attention_U.0"](x)))
    else:
        raw = w["attention.2"](np.tanh(w["attention.0"](x)))
    weights = softmax(raw)
    return Expected(w["classifier.0"](weights[:, 0] @ x), raw, weights, "weights")


def trident_formula(w, x):
    model = "feature_encoder.model."
    pooler = f"{model}image_pooler."
    h = gelu(w[f"{model}pre_attention_layers.0"](x))
    raw = []
    while f"{pooler}attention_heads.{len(raw)}.0" in w:
        n = len(raw)
        t = np.tanh(w[f"{pooler}attention_heads.{n}.0"](h))
        if f"{pooler}gating_layers.{n}.0" in w:
            t = t * sigmoid(w[f"{pooler}gating_layers.{n}.0"](h))
        raw.append(w[f"{pooler}branching_layers.{n}"](t)[:, 0])
    raw = np.stack(raw, 1)
    weights = softmax(raw)
    bag = np.concatenate([weights[:, k] @ h for k in range(raw.shape[1])])
    bag = w[f"{pooler}condensing_layer"](bag) if raw.shape[1] > 1 else bag
    bag = gelu(w[f"{model}post_attention_layers.0"](bag))
    logits = w["classifier.2"](relu(w["classifier.0"](bag)))
    return Expected(logits, raw.mean(1, keepdims=True), weights.mean(1, keepdims=True))


def clam_formula(w, x, at=3, second=3):
    h = relu(w["attention_net.0"](x))
    raw = attention(w, f"attention_net.{at}", h, second)
    weights = softmax(raw)
    if "classifiers" in w:
        return Expected(w["classifiers"](weights[:, 0] @ h), raw, weights)
    each = [w[f"classifiers.{c}"](weights[:, c] @ h) for c in range(raw.shape[1])]
    return Expected(np.concatenate(each), raw, weights)


def likeness(q, c):
    """One class and one patch at a time."""
    raw = np.zeros(c.shape)
    for k in range(c.shape[1]):
        critical = q[max(range(len(c)), key=lambda i, k=k: c[i, k])]
        for i in range(len(c)):
            raw[i, k] = (q[i] * critical).sum() / math.sqrt(len(critical))
    return raw


def convolved(w, bags):
    logits = [(w.weight[k] * bags).sum() + w.bias[k] for k in range(len(w.weight))]
    return np.array(logits)


def dsmil_formula(w, x):
    c = w["i_classifier.fc.0" if "i_classifier.fc.0" in w else "i_classifier.fc"](x)
    if "b_classifier.q.0" in w:
        q = np.tanh(w["b_classifier.q.2"](relu(w["b_classifier.q.0"](x))))
    else:
        q = w["b_classifier.q"](x)
    raw = likeness(q, c)
    weights = softmax(raw)
    v = relu(w["b_classifier.v.1"](x)) if "b_classifier.v.1" in w else x
    logits = convolved(w["b_classifier.fcc"], weights.T @ v)
    return Expected(logits, raw, weights, "weights", sigmoid=True, instances=c)


def millab_dsmil_formula(w, x):
    h = relu(w["patch_embed.0"](x))
    c = w["i_classifier.inst_classifier"](h)
    raw = likeness(w["b_classifier.q"](h), c)
    weights = softmax(raw)
    bags = norm(weights.T @ w["b_classifier.v.1"](h), w["b_classifier.norm"])
    logits = (convolved(w["classifier"], bags) + c.max(0)) / 2
    return Expected(logits, raw, weights, "weights", instances=c)


def layer_names(millab, n):
    layer = f"blocks.{n}" if millab else f"layer{n + 1}"
    return layer, f"{layer}.{'attention' if millab else 'attn'}"


def nystrom(w, place, x):
    """Attention of all tokens, with every matrix written out: (n, DIM) and (heads, n, n)."""
    m, n = x.shape[1] // 2, len(x)
    front = -n % m
    padded = np.concatenate([np.zeros((front, x.shape[1])), x])
    heads = len(w[f"{place}.res_conv"].weight)
    q, k, v = (
        part.reshape(len(padded), heads, -1).transpose(1, 0, 2)
        for part in np.split(padded @ w[f"{place}.to_qkv"].weight.T, 3, 1)
    )
    q = q / math.sqrt(q.shape[2])
    group = len(padded) // m
    lq = np.stack([q[:, i * group : (i + 1) * group].mean(1) for i in range(m)], 1)
    lk = np.stack([k[:, i * group : (i + 1) * group].mean(1) for i in range(m)], 1)
    a1, a2, a3 = (softmax(a, 2) for a in (q @ lk.swapaxes(1, 2), lq @ lk.swapaxes(1, 2),
                                          lq @ k.swapaxes(1, 2)))  # fmt: skip
    z = a2.swapaxes(1, 2) / (a2.sum(2).max() * a2.sum(1).max())
    one = np.eye(m)
    for _ in range(6):
        az = a2 @ z
        z = z @ (13 * one - az @ (15 * one - az @ (7 * one - az))) / 4
    whole = a1 @ z @ a3  # (heads, padded n, padded n)
    out = whole @ v
    kernel = w[f"{place}.res_conv"].weight[:, 0, :, 0]
    for h in range(heads):
        for i in range(len(padded)):
            for j in range(KERNEL):
                at = i + j - KERNEL // 2
                if 0 <= at < len(padded):
                    out[h, i] += kernel[h, j] * v[h, at]
    out = out.transpose(1, 0, 2).reshape(len(padded), -1)
    return w[f"{place}.to_out.0"](out)[front:], whole[:, front:, front:]


def placed(w, tokens):
    """The convolutions over the square, one tap at a time."""
    side = math.isqrt(len(tokens) - 1)
    square = tokens[1:].reshape(side, side, -1)
    out = square.copy()
    for name, k in (("proj", 7), ("proj1", 5), ("proj2", 3)):
        layer = w[f"pos_layer.{name}"]
        wide = np.pad(square, ((k // 2,) * 2, (k // 2,) * 2, (0, 0)))
        for dy in range(k):
            for dx in range(k):
                out += wide[dy : dy + side, dx : dx + side] * layer.weight[:, 0, dy, dx]
        out += layer.bias
    return np.concatenate([tokens[:1], out.reshape(-1, tokens.shape[1])])


def transmil_formula(w, x):
    millab = "patch_embed.0" in w
    h = relu(w["patch_embed.0" if millab else "_fc1.0"](x))
    side = math.ceil(math.sqrt(len(h)))
    tokens = np.concatenate([w.raw("cls_token")[0], h, h[: side**2 - len(h)]])
    rows = {}
    for n in (0, 1):
        layer, place = layer_names(millab, n)
        out, whole = nystrom(w, place, norm(tokens, w[f"{layer}.norm"]))
        tokens = tokens + out
        rows[n] = whole[:, 0, 1 : len(x) + 1].mean(0)
        if n == 0:
            dot = tokens[1 : len(x) + 1] @ tokens[0]
            tokens = placed(w, tokens)
    fc = "classifier" if millab else "_fc2"
    logits = w[fc](norm(tokens[0], w["norm"])) if fc in w else None
    named = {"dot": dot, "nystrom": rows[1], "nystrom-1": rows[0]}
    return Expected(logits, dot[:, None], softmax(dot)[:, None], rows=named)
