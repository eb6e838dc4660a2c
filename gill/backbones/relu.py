"""A ReLU for frozen networks that gradient passes through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MaskReLU(nn.Module):
    """ReLU that keeps one byte a unit for its gradient instead of its output.

    torch's keeps the output, which a trainable layer behind it keeps anyway; behind this one nothing trains.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """max(inputs, 0)."""
        return _MaskReLU.apply(inputs) if torch.is_grad_enabled() else inputs.relu()


class _MaskReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(inputs > 0)
        return inputs.relu()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (is_positive,) = ctx.saved_tensors
        return grad * is_positive


def replace_relus(model: nn.Module) -> None:
    """Put a `MaskReLU` in the place of every `nn.ReLU` of a model that is frozen."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, MaskReLU())
