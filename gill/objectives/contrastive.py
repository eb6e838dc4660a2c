"""Contrastive alignment of captions and images.

InfoNCE with in-batch negatives, in both directions (CLIP, arXiv:2103.00020, Fig. 3).

Shape legend: B = pairs, E = retrieval width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gill.errors import ShapeError


def contrastive_loss(text_BE: Tensor, image_BE: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over the pairs of one batch.

    Args:
        text_BE: float[B, E], unit norm. Row i describes image i.
        image_BE: float[B, E], unit norm.
        logit_scale: float[], inverse temperature, already exponentiated.

    Returns:
        float[], mean of the text-to-image and image-to-text cross entropies, in nats.
        A random guess scores log(B).

    Raises:
        ShapeError: if the two sides do not pair up.
    """
    if text_BE.shape != image_BE.shape:
        raise ShapeError(f"captions and images must pair up: got {tuple(text_BE.shape)} and {tuple(image_BE.shape)}")
    logits_BB = logit_scale * text_BE @ image_BE.T  # rows: captions, columns: images
    pair_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (F.cross_entropy(logits_BB, pair_B) + F.cross_entropy(logits_BB.T, pair_B)) / 2


def shared_gradient(value: Tensor, share: float) -> Tensor:
    """The same value with `share` of its gradient.

    A number every share of a batch computes in full (the temperature) gives the whole gradient once when summed.
    """
    return value.detach() + share * (value - value.detach())
