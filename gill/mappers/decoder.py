"""The decoder layer of the GILLMapper: `nn.TransformerDecoderLayer`, norm first, with less work and less memory.

Its parameters and results are torch's. The target may be one sequence for a whole batch of memories, and the output of
a layer norm is not kept for the backward pass but made again from the norm's input.

Shape legend: B = samples, L = target length, R = memory length, W = width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DecoderLayer(nn.TransformerDecoderLayer):
    """float[B or 1, L, W], float[B, R, W] -> float[B, L, W]; without masks and dropout, with a ReLU."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.relu = nn.ReLU()  # a module, so that what it reads can be watched

    def forward(self, tgt: Tensor, memory: Tensor, *_: object, **__: object) -> Tensor:
        """As the class says; the masks `nn.TransformerDecoder` hands on are all None."""
        own = self.self_attn
        queries, keys, values = _normed_linear(tgt, self.norm1, own.in_proj_weight, own.in_proj_bias).chunk(3, dim=-1)
        states = tgt + _attend(own, queries, keys, values)
        states = states + self._look_at(memory, states)
        inner = self.relu(_normed_linear(states, self.norm3, self.linear1.weight, self.linear1.bias))
        return states + self.linear2(inner)

    def _look_at(self, memory: Tensor, states: Tensor) -> Tensor:
        other = self.multihead_attn
        sizes = [other.embed_dim, 2 * other.embed_dim]
        query_weight, memory_weight = other.in_proj_weight.split(sizes)
        query_bias, memory_bias = other.in_proj_bias.split(sizes)
        queries = _normed_linear(states, self.norm2, query_weight, query_bias)
        keys, values = F.linear(memory, memory_weight, memory_bias).chunk(2, dim=-1)
        return _attend(other, queries.expand(len(memory), -1, -1), keys, values)


def _attend(attention: nn.MultiheadAttention, *projected: Tensor) -> Tensor:
    """float[B, L, W] from projected queries, keys and values."""
    heads = [states.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for states in projected]
    return attention.out_proj(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


def _normed_linear(states: Tensor, norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> Tensor:
    return _NormedLinear.apply(states, norm.weight, norm.bias, norm.eps, weight, bias)


class _NormedLinear(torch.autograd.Function):
    """A linear map of a layer norm that keeps the norm's input only."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, scale_W: Tensor, shift_W: Tensor, eps: float, weight: Tensor, bias: Tensor
    ) -> Tensor:
        normed, mean, inverse_std = torch.native_layer_norm(states, states.shape[-1:], scale_W, shift_W, eps)
        ctx.save_for_backward(states, scale_W, shift_W, mean, inverse_std, weight)
        return F.linear(normed, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, scale_W, shift_W, mean, inverse_std, weight = ctx.saved_tensors
        normed = torch.addcmul(shift_W, (states - mean) * inverse_std, scale_W)
        flat_grad = grad.flatten(0, -2)
        grad_states, grad_scale, grad_shift = torch.ops.aten.native_layer_norm_backward(
            grad @ weight, states, states.shape[-1:], mean, inverse_std, scale_W, shift_W, [True, True, True]
        )
        grad_weight = flat_grad.T @ normed.flatten(0, -2)
        return grad_states, grad_scale, grad_shift, None, grad_weight, flat_grad.sum(0)
