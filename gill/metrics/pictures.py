"""How like two pictures, or two sets of pictures, are, given what a network sees in them.

No network is named here: CLIP similarity takes the embeddings of any CLIP, LPIPS the feature maps of any
convolutional network, the Fréchet and kernel distances the features of any classifier or encoder.

Shape legend: N and M = pictures, E = embedding width, D = feature width, C x H x W = channels and places of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gill.errors import DataError, ShapeError

_LPIPS_EPSILON = 1e-10  # of the original's normalisation


def cosine_similarities(left_NE: Tensor, right_NE: Tensor) -> Tensor:
    """float64[N] in -1..1, row i with row i: CLIP similarity of embedded pictures, or of pictures and texts.

    Raises:
        ShapeError: the two sides do not pair up. DataError: a row of zeros, or with a value that is not finite.
    """
    if left_NE.shape != right_NE.shape or left_NE.dim() != 2:
        raise ShapeError(f"rows must pair up: got {tuple(left_NE.shape)} and {tuple(right_NE.shape)}")
    return (_unit_rows(left_NE) * _unit_rows(right_NE)).sum(1)


def _unit_rows(rows_NE: Tensor) -> Tensor:
    rows_NE = rows_NE.double()
    norm_N1 = rows_NE.norm(dim=1, keepdim=True)
    bad = ~norm_N1[:, 0].isfinite() | (norm_N1[:, 0] == 0)
    if bad.any():
        raise DataError(f"embedding {int(bad.long().argmax())} is zero or not finite, it has no direction")
    return rows_NE / norm_N1


def lpips_distances(
    left: Sequence[Tensor], right: Sequence[Tensor], channel_weights: Sequence[Tensor] | None = None
) -> Tensor:
    """float[N]: learned perceptual distance of picture i to picture i, 0 for equal ones (arXiv:1801.03924, eq. 1).

    Args:
        left, right: float[N, C, H, W] of each layer of a network; layers differ in size.
        channel_weights: float[C] >= 0 of each layer, as LPIPS learned them; None takes 1 for all, which makes a layer's
            distance 2 - 2 cos, averaged over places.

    Raises:
        ShapeError: layers that do not pair up.
    """
    if [each.shape for each in left] != [each.shape for each in right] or not left:
        raise ShapeError(f"layers must pair up: {[*map(_shape, left)]} and {[*map(_shape, right)]}")
    if channel_weights is None:
        channel_weights = [each.new_ones(each.shape[1]) for each in left]
    if [len(weight) for weight in channel_weights] != [each.shape[1] for each in left]:
        raise ShapeError(
            f"wanted one weight a channel: {[*map(_shape, channel_weights)]} for maps {[*map(_shape, left)]}"
        )
    layers = zip(left, right, channel_weights, strict=True)
    return torch.stack([_layer_distance(*layer) for layer in layers]).sum(0)


def _layer_distance(left_NCHW: Tensor, right_NCHW: Tensor, weight_C: Tensor) -> Tensor:
    difference = _unit_channels(left_NCHW) - _unit_channels(right_NCHW)
    return (difference.square() * weight_C[:, None, None]).sum(1).mean((1, 2))


def _unit_channels(map_NCHW: Tensor) -> Tensor:
    return map_NCHW / (map_NCHW.square().sum(1, keepdim=True).sqrt() + _LPIPS_EPSILON)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
