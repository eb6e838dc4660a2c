"""The half of a trained model that embeds pictures: its frozen vision tower and its retrieval head.

No language model is loaded, so an index for a 6.7 B model is built in the memory of a CLIP.

Shape legend: B = pictures, E = retrieval width.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gill.backbones import ImageTransform, VisionTower
from gill.errors import CheckpointError
from gill.models.gill.encoding import load_transform
from gill.models.gill.loading import load_vision
from gill.models.gill.trained import located, read_trained
from gill.retrieval import fingerprint

_WEIGHT_NAMES = ("retrieval_heads.image.weight", "retrieval_heads.image.bias")


class ImageEmbedder(nn.Module):
    """Pixels to rows of the retrieval space.

    Args:
        weight, bias: float[E, F] and float[E], the retrieval head's.
    """

    def __init__(self, tower: VisionTower, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.load_state_dict({"weight": weight, "bias": bias})

    @property
    def width(self) -> int:
        """E."""
        return self.head.out_features

    @property
    def fingerprint(self) -> str:
        """Of the weights that an index is built with, as `RetrievalIndex.check_model` compares it."""
        return fingerprint(self.head.weight, self.head.bias)

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        """float[B, 3, H, W] on any device -> float[B, E], unit norm."""
        feature_BF = self.tower(pixel_values.to(self.head.weight.device))
        return F.normalize(self.head(feature_BF.to(self.head.weight.dtype)), dim=-1)


def load_image_embedder(place: Path, device: torch.device | str = "cpu") -> tuple[ImageEmbedder, ImageTransform]:
    """The picture half of a trained model, and the preprocessing that belongs to it.

    Args:
        place: a run, a saved model or a released one, as `read_trained` takes it.

    Raises:
        MissingCheckpointError, CheckpointError: as `read_trained`; ConfigError: its vision tower cannot be loaded.
    """
    trained = read_trained(place)
    missing = [name for name in _WEIGHT_NAMES if name not in trained.state]
    if missing:
        raise CheckpointError(f"{trained.source} lacks {', '.join(missing)}; it cannot embed pictures")
    config = located(trained.config, trained.source)
    embedder = ImageEmbedder(load_vision(config, device), *(trained.state[name] for name in _WEIGHT_NAMES))
    return embedder.to(device), load_transform(config)
