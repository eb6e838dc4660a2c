"""Linear maps around the frozen backbones.

Shape legend: B = samples, F = pooled image feature width, V = visual prefix tokens, D = language model width,
E = retrieval width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class VisualPrefix(nn.Module):
    """Turn a pooled image feature into V tokens that the language model reads: float[B, F] -> float[B, V, D].

    Args:
        whitening: float[F, F] that features are multiplied by first; frozen, and no part of what is saved.
    """

    def __init__(
        self,
        feature_width: int,
        num_visual_tokens: int,
        width: int,
        dropout: float = 0.0,
        whitening: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.num_visual_tokens = num_visual_tokens
        self.linear = nn.Linear(feature_width, num_visual_tokens * width)
        self.dropout = nn.Dropout(dropout)
        self.whitening: Tensor | None
        self.register_buffer("whitening", whitening, persistent=False)

    def forward(self, feature_BF: Tensor) -> Tensor:
        """float[B, V, D]."""
        if self.whitening is not None:
            feature_BF = feature_BF @ self.whitening
        tokens = self.dropout(self.linear(feature_BF))
        return tokens.unflatten(-1, (self.num_visual_tokens, -1))


class RetrievalHeads(nn.Module):
    """Linear maps of both sides into the shared retrieval space, rows of unit norm.

    `text` reads the hidden state of [IMG0], `image` the pooled image feature.
    """

    def __init__(
        self,
        hidden_width: int,
        feature_width: int,
        retrieval_width: int,
        text_dropout: float = 0.0,
        image_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.text = nn.Linear(hidden_width, retrieval_width)
        self.image = nn.Linear(feature_width, retrieval_width)
        self.text_dropout, self.image_dropout = nn.Dropout(text_dropout), nn.Dropout(image_dropout)

    def embed_text(self, hidden_BD: Tensor) -> Tensor:
        """float[B, D] hidden states at [IMG0] -> float[B, E], unit norm."""
        return F.normalize(self.text_dropout(self.text(hidden_BD)), dim=-1)

    def embed_image(self, feature_BF: Tensor) -> Tensor:
        """float[B, F] -> float[B, E], unit norm."""
        return F.normalize(self.image_dropout(self.image(feature_BF)), dim=-1)
