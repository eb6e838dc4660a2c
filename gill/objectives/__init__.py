"""Training objectives: tensors in, scalars out."""

from gill.objectives.captioning import label_ranks, token_cross_entropy
from gill.objectives.conditioning import CONDITIONING_DISTANCES, conditioning_distance
from gill.objectives.contrastive import contrastive_loss, shared_gradient

__all__ = [
    "CONDITIONING_DISTANCES",
    "conditioning_distance",
    "contrastive_loss",
    "label_ranks",
    "shared_gradient",
    "token_cross_entropy",
]
