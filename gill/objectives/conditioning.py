"""Distance between a mapped sequence and the diffusion model's own text encoding.

"euclidean" is GILL's (arXiv:2305.17216, eq. 5 as its code computes it): the norm over the width, not its square.
"cosine" and "mse" are the usual alternatives.

Shape legend: B = samples, L = conditioning length, C = conditioning width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gill.errors import ShapeError


def _euclidean(mapped_BLC: Tensor, target_BLC: Tensor) -> Tensor:
    return torch.linalg.vector_norm(mapped_BLC - target_BLC, dim=-1)  # gradient 0, not NaN, where both are equal


def _cosine(mapped_BLC: Tensor, target_BLC: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(mapped_BLC, target_BLC, dim=-1)


def _mse(mapped_BLC: Tensor, target_BLC: Tensor) -> Tensor:
    return (mapped_BLC - target_BLC).square().mean(dim=-1)


CONDITIONING_DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "euclidean": _euclidean,
    "cosine": _cosine,
    "mse": _mse,
}


def conditioning_distance(mapped_BLC: Tensor, target_BLC: Tensor, kind: str = "euclidean") -> Tensor:
    """Distance of each sample, averaged over its positions.

    Args:
        mapped_BLC: float[B, L, C] from the mapper.
        target_BLC: float[B, L, C] from the text encoder, no gradient.
        kind: one of `CONDITIONING_DISTANCES`.

    Returns:
        float[B].

    Raises:
        ShapeError: the two differ in shape.
    """
    if mapped_BLC.shape != target_BLC.shape:
        raise ShapeError(
            f"the mapper gives {tuple(mapped_BLC.shape[1:])} a sample, the target is {tuple(target_BLC.shape[1:])}; "
            "the targets were made with another text encoder"
        )
    return CONDITIONING_DISTANCES[kind](mapped_BLC, target_BLC.to(mapped_BLC.dtype)).mean(dim=-1)
