"""The class token of a CLIP vision tower, without what the last layer would compute for the patches.

Only the class token is pooled, so in the last layer the patches give keys and values and nothing else.

Shape legend: B = images, N = class token and patches, D = width.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionModel


def class_token(tower: CLIPVisionModel, pixel_values: Tensor) -> Tensor:
    """float[B, 3, H, W] -> float[B, D], the tower's `pooler_output`."""
    hidden_BND = tower.pre_layrnorm(tower.embeddings(pixel_values))
    *layers, last = tower.encoder.layers
    for layer in layers:
        hidden_BND = layer(hidden_BND, None)
    return tower.post_layernorm(_first_token(last, hidden_BND))


def _first_token(layer: Any, hidden_BND: Tensor) -> Tensor:
    """float[B, D]: what a `CLIPEncoderLayer` makes of the first of N tokens."""
    normed_BND, attention = layer.layer_norm1(hidden_BND), layer.self_attn
    maps = (attention.q_proj, normed_BND[:, :1]), (attention.k_proj, normed_BND), (attention.v_proj, normed_BND)
    queries, keys, values = (_heads(project(tokens), attention.head_dim) for project, tokens in maps)
    mixed_B1D = F.scaled_dot_product_attention(queries, keys, values, scale=attention.scale).transpose(1, 2).flatten(2)
    first_B1D = hidden_BND[:, :1] + attention.out_proj(mixed_B1D)
    return (first_B1D + layer.mlp(layer.layer_norm2(first_B1D)))[:, 0]


def _heads(tokens_BND: Tensor, head_dim: int) -> Tensor:
    """float[B, heads, N, head_dim]."""
    return tokens_BND.unflatten(-1, (-1, head_dim)).transpose(1, 2)
