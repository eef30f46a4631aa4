"""Self-attention in linear memory: Nyström's approximation.

Xiong et al. 2021, "Nyströmformer: a Nyström-based algorithm for approximating self-attention",
equations 13 to 15, with the residual convolution of its figure 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

ITERATIONS = 6
"""Of the pseudo-inverse; no checkpoint states it."""


class NystromAttention(nn.Module):
    """Attention (n, dim) -> (n, dim) through landmarks: means of neighbouring tokens.

    Parameters
    ----------
    dim : int
        Width of the tokens.
    inner : int
        Width of all heads together.
    heads : int
    landmarks : int
    kernel : int
        Tokens that the residual convolution sees, odd.

    Notes
    -----
    Memory bound: of one head at a time, about (2 n · landmarks + 4 n · inner / heads) floats, and
    the result.
    """

    def __init__(self, dim: int, inner: int, heads: int, landmarks: int, kernel: int) -> None:
        super().__init__()
        self.landmarks, self.n_heads, self.kernel = landmarks, heads, kernel
        self.qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.out = nn.Linear(inner, dim)
        self.residual = nn.Conv2d(heads, heads, (kernel, 1), groups=heads, bias=False)

    def forward(self, x: Tensor, *, row: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Parameters
        ----------
        x : (n, dim)
        row : bool
            Whether to return how much the first token attends to each, too.

        Returns
        -------
        (n, dim), and (heads, n) or None
            Of the approximation; it can be negative.
        """
        front = -len(x) % self.landmarks
        padded = F.pad(x, (0, 0, front, 0))  # zeros, which stay zero in q, k and v
        wq, wk, wv = self._weights()  # each (heads, d, dim)
        means = padded.view(self.landmarks, -1, x.shape[1]).mean(1)
        lq, lk = means @ wq.mT, means @ wk.mT  # landmarks of each head (heads, m, d)
        inverse = pseudo_inverse(torch.softmax(lq @ lk.mT, -1))
        out = self.out.bias.repeat(len(x), 1)
        rows = []
        for h in range(self.n_heads):
            wide = torch.softmax(lq[h] @ (padded @ wk[h].T).T, -1)  # (m, padded n)
            v = padded @ wv[h].T  # (padded n, d)
            middle = inverse[h] @ (wide @ v)  # (m, d)
            if row:
                first = torch.softmax((x[:1] @ wq[h].T) @ lk[h].T, -1)
                rows.append((first @ inverse[h] @ wide)[0, front:])
            del wide
            near = self._near(v, h)[front:]
            near += torch.softmax((x @ wq[h].T) @ lk[h].T, -1) @ middle
            out += near @ self._out(h).T
        return out, torch.stack(rows) if row else None

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv.weight.view(3, self.n_heads, -1, self.qkv.in_features)
        return q * q.shape[1] ** -0.5, k, v

    def _out(self, head: int) -> Tensor:
        """Columns (dim, d) of the last layer that a head's output goes through."""
        return self.out.weight.view(len(self.out.bias), self.n_heads, -1)[:, head]

    def _near(self, v: Tensor, head: int) -> Tensor:
        """Sum (n, d) of the neighbouring values, by the head's kernel."""
        kernel = self.residual.weight[head : head + 1, :, :, 0]  # (1, 1, kernel)
        return F.conv1d(v.T[:, None], kernel, padding=self.kernel // 2)[:, 0].T


def pseudo_inverse(a: Tensor) -> Tensor:
    """Moore-Penrose inverse of (heads, m, m), by the iteration of Razavi et al. 2014.

    The first guess is scaled by the largest sums of all heads together, as by all who trained
    such models.
    """
    one = torch.eye(a.shape[-1], device=a.device, dtype=a.dtype)
    sums = a.abs()
    z = a.mT / (sums.sum(-1).max() * sums.sum(-2).max())
    for _ in range(ITERATIONS):
        az = a @ z
        z = 0.25 * z @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
    return z
