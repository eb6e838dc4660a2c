"""Linear maps of frozen networks on a CPU: the same products, in the order and layout that read the weights fastest.

Shape legend: N = rows in, D = numbers a row in, O = numbers a row out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Rows for which BLAS reads a float32 weight up to twice as fast from the left as from the right: a batch that decodes.
_FEW_ROWS = range(6, 49)


class FewRowsLinear(nn.Linear):
    """A linear map that multiplies a few rows from the other side, (W x^T)^T, where no gradient is wanted."""

    def forward(self, input: Tensor) -> Tensor:
        """float[..., D] -> float[..., O]."""
        if self._is_faster_from_the_left(input):
            outputs_NO = (self.weight @ input.reshape(-1, self.in_features).T).T.contiguous()
            if self.bias is not None:
                outputs_NO += self.bias
            return outputs_NO.view(*input.shape[:-1], self.out_features)
        return F.linear(input, self.weight, self.bias)

    def _is_faster_from_the_left(self, input: Tensor) -> bool:
        if torch.is_grad_enabled() or input.dtype is not torch.float32 or not input.is_cpu:
            return False
        return input.numel() // self.in_features in _FEW_ROWS


def replace_linears(model: nn.Module) -> None:
    """Let every plain `nn.Linear` of a frozen model be a `FewRowsLinear` with the same parameters."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FewRowsLinear


def lay_out_by_columns(linear: nn.Linear) -> None:
    """Keep the weight of a wide map column after column on a CPU, where a single row is then multiplied faster.

    A parameter that is tied to it, such as a word table, stays tied; looking up its rows becomes slower.
    """
    if linear.weight.is_cpu:
        linear.weight.data = linear.weight.data.T.contiguous().T
