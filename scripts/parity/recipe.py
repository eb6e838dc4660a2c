"""Trained tensors by name: each follows from (seed, name, shape), so a checkpoint needs no storage."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

_TEMPERATURE = 0.07


def make_tensor(seed: int, name: str, shape: Sequence[int]) -> Tensor:
    """float32 tensor: scalars are the log of 1 / 0.07, matrices have unit-variance outputs, norms are near 1."""
    if not shape:
        return torch.tensor(math.log(1 / _TEMPERATURE), dtype=torch.float32)
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")
    values = np.random.default_rng(key).standard_normal(tuple(shape)).astype(np.float32)
    if len(shape) == 1:
        values = np.float32(0.1) * values
        values = values + np.float32(1) if name.endswith("weight") else values
    elif not name.endswith("query_embs"):
        values = values / np.float32(math.sqrt(math.prod(shape[1:])))
    return torch.from_numpy(values)


def make_state(seed: int, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """A released state dict."""
    return {name: make_tensor(seed, name, shape) for name, shape in shapes.items()}
