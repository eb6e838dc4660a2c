"""The frozen text encoder of a diffusion model: captions to conditioning targets.

Shape legend: B = captions, L = conditioning length, C = conditioning width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel

from gill.errors import ConfigError
from gill.parameters import FrozenModule, freeze


class ConditioningEncoder(FrozenModule):
    """What the diffusion model would have been given for a caption: int64[B, L] -> float[B, L, C].

    The last hidden state of a CLIP text encoder after its final norm, as Stable Diffusion 1.x feeds it to its UNet.
    """

    def __init__(self, encoder: CLIPTextModel, length: int) -> None:
        super().__init__()
        self.encoder = freeze(encoder)
        self.length, self.width = length, encoder.config.hidden_size

    @torch.no_grad()
    def forward(self, conditioning_ids: Tensor) -> Tensor:
        """float[B, L, C], no gradient."""
        return self.encoder(input_ids=conditioning_ids).last_hidden_state


class ConditioningTokenizer:
    """Captions to ids of fixed length: padded and cut as the diffusion pipeline does."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """int64[B, L]."""
        encoded = self.tokenizer(
            list(captions), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
        )
        return encoded["input_ids"]


def load_conditioning_encoder(name: str, device: torch.device | str, dtype: torch.dtype) -> ConditioningEncoder:
    """Load the text encoder of a diffusion pipeline.

    Args:
        name: hub name or folder of the pipeline, with `text_encoder/` and `tokenizer/` inside.

    Raises:
        ConfigError: nothing loadable there.
    """
    try:
        encoder = CLIPTextModel.from_pretrained(name, subfolder="text_encoder", dtype=dtype)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load the text encoder of {name!r}: {error}; give a diffusion pipeline's folder"
        ) from error
    return ConditioningEncoder(encoder, encoder.config.max_position_embeddings).to(device)


def load_conditioning_tokenizer(name: str) -> ConditioningTokenizer:
    """The tokenizer that belongs to `load_conditioning_encoder(name)`.

    Raises:
        ConfigError: nothing loadable there.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, subfolder="tokenizer")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load the tokenizer of {name!r}: {error}; give a diffusion pipeline's folder"
        ) from error
    return ConditioningTokenizer(tokenizer, tokenizer.model_max_length)
