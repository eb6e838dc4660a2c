"""The frozen text encoder of a diffusion model: captions to conditioning targets.

Stable Diffusion XL has two text encoders and a pooled vector, which becomes the last rows of the target
(`gill.backbones.pooled`).

Shape legend: B = captions, L x C = conditioning sequence, pooled rows included, T = tokens an encoder reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection
from transformers.utils import cached_file

from gill.backbones.pooled import num_pooled_rows, pack_pooled
from gill.errors import ConfigError
from gill.parameters import FrozenModule, freeze

_PIPELINE_CARD = "model_index.json"


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


class XLConditioningEncoder(ConditioningEncoder):
    """The same for Stable Diffusion XL: int64[B, 2T], the ids of both tokenizers, -> float[B, L, C].

    The states before the last layer of both encoders side by side, then the second one's pooled and projected vector.
    """

    def __init__(self, encoder: CLIPTextModel, encoder_2: CLIPTextModelWithProjection, num_tokens: int) -> None:
        super().__init__(encoder, num_tokens)
        self.encoder_2 = freeze(encoder_2)
        self.width = encoder.config.hidden_size + encoder_2.config.hidden_size
        self.length = num_tokens + num_pooled_rows(encoder_2.config.projection_dim, self.width)

    @torch.no_grad()
    def forward(self, conditioning_ids: Tensor) -> Tensor:
        """float[B, L, C], no gradient."""
        ids, ids_2 = conditioning_ids.chunk(2, dim=1)
        first = self.encoder(input_ids=ids, output_hidden_states=True)
        second = self.encoder_2(input_ids=ids_2, output_hidden_states=True)
        sequence = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return pack_pooled(sequence, second.text_embeds)


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


class XLConditioningTokenizer(ConditioningTokenizer):
    """Ids of the two tokenizers of Stable Diffusion XL side by side; they differ in how they pad."""

    def __init__(self, tokenizer: Any, tokenizer_2: Any, length: int) -> None:
        super().__init__(tokenizer, length)
        self.second = ConditioningTokenizer(tokenizer_2, length)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """int64[B, 2T]."""
        return torch.cat([super().__call__(captions), self.second(captions)], dim=1)


def load_conditioning_encoder(name: str, device: torch.device | str, dtype: torch.dtype) -> ConditioningEncoder:
    """Load the text encoder, or both, of a diffusion pipeline.

    Args:
        name: hub name or folder of the pipeline, with `text_encoder/` and `tokenizer/` inside.

    Raises:
        ConfigError: nothing loadable there.
    """
    try:
        encoder = CLIPTextModel.from_pretrained(name, subfolder="text_encoder", dtype=dtype)
        num_tokens = encoder.config.max_position_embeddings
        if not _has_second(name):
            return ConditioningEncoder(encoder, num_tokens).to(device)
        second = CLIPTextModelWithProjection.from_pretrained(name, subfolder="text_encoder_2", dtype=dtype)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load the text encoder of {name!r}: {error}; give a diffusion pipeline's folder"
        ) from error
    return XLConditioningEncoder(encoder, second, num_tokens).to(device)


def load_conditioning_tokenizer(name: str) -> ConditioningTokenizer:
    """The tokenizer that belongs to `load_conditioning_encoder(name)`.

    Raises:
        ConfigError: nothing loadable there.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, subfolder="tokenizer")
        if not _has_second(name):
            return ConditioningTokenizer(tokenizer, tokenizer.model_max_length)
        second = AutoTokenizer.from_pretrained(name, subfolder="tokenizer_2")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load the tokenizer of {name!r}: {error}; give a diffusion pipeline's folder"
        ) from error
    return XLConditioningTokenizer(tokenizer, second, tokenizer.model_max_length)


def _has_second(name: str) -> bool:
    """Whether a pipeline has two text encoders; a folder that holds an encoder and no pipeline has one."""
    card = Path(name) / _PIPELINE_CARD if Path(name).is_dir() else Path(str(cached_file(name, _PIPELINE_CARD)))
    if not card.is_file():
        return False
    return json.loads(card.read_text(encoding="utf-8")).get("text_encoder_2", [None])[0] is not None
