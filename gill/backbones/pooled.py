"""A conditioning sequence with a pooled vector, as one tensor.

Stable Diffusion is conditioned on a sequence; Stable Diffusion XL on a sequence and on a pooled vector that enters its
UNet with the time. The pooled vector travels as further rows of the sequence, filled up with zeros (SDXL: 77 x 2048
and 1280 become 78 x 2048). So one tensor is what a mapper learns (its last queries learn the pooled vector), what a
store keeps, what an answer carries and what a drawer takes, whichever diffusion model is behind it.

Shape legend: B = samples, L = rows of the sequence, C = its width, P = pooled width, S = packed rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from gill.errors import ShapeError


def pack_pooled(sequence_BLC: Tensor, pooled_BP: Tensor) -> Tensor:
    """float[B, S, C]: the sequence, then the pooled vector in S - L = ceil(P / C) rows filled up with zeros.

    Raises:
        ShapeError: not as many pooled vectors as sequences.
    """
    if len(sequence_BLC) != len(pooled_BP):
        raise ShapeError(f"one pooled vector a sequence: got {len(pooled_BP)} and {len(sequence_BLC)}")
    width = sequence_BLC.shape[-1]
    rows = num_pooled_rows(pooled_BP.shape[-1], width)
    filled = F.pad(pooled_BP, (0, rows * width - pooled_BP.shape[-1]))
    return torch.cat([sequence_BLC, filled.view(-1, rows, width)], dim=1)


def unpack_pooled(packed_BSC: Tensor, pooled_width: int) -> tuple[Tensor, Tensor]:
    """(float[B, L, C], float[B, P]) of what `pack_pooled` made; what fills up the last row is not looked at."""
    rows = num_pooled_rows(pooled_width, packed_BSC.shape[-1])
    return packed_BSC[:, :-rows], packed_BSC[:, -rows:].flatten(1)[:, :pooled_width]


def num_pooled_rows(pooled_width: int, width: int) -> int:
    """Rows of `width` numbers that hold a pooled vector."""
    return math.ceil(pooled_width / width)
