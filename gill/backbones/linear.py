"""Linear maps of frozen networks on a CPU: the same products, in the order and layout that read the weights fastest.

A decoder multiplies a weight by one row, or by the few rows of its batch. BLAS gives one row to one core, and copies a
weight to multiply it by a few; blocks of the weight are read by all cores, and from the left a weight is not copied.

Shape legend: N = rows in, D = numbers a row in, O = numbers a row out, P = blocks of a weight, H = rows of a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MOST_ROWS = 48  # with more, BLAS as torch calls it is as fast
_FEWEST_FROM_THE_LEFT = 6
_FEWEST_BLOCKS = 16
_CACHE_LINE = 16  # float32 numbers; blocks that begin between two lines are read up to twice as slowly


class FewRowsLinear(nn.Linear):
    """A linear map that multiplies a few rows in the fastest order, see `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """float[..., D] -> float[..., O]."""
        return linear(input, self.weight, self.bias)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, faster for a few rows of float32 on a CPU where no gradient is wanted.

    Args:
        input: float[..., D]. weight: float[O, D], row after row or column after column. bias: float[O].

    Returns:
        float[..., O].
    """
    if not _has_few_rows(input):
        return F.linear(input, weight, bias)
    rows_ND = input.reshape(-1, weight.shape[1])
    if len(rows_ND) < _FEWEST_FROM_THE_LEFT or weight.stride(0) == 1:
        outputs_NO = _by_blocks(rows_ND, weight)
    else:
        outputs_NO = (weight @ rows_ND.T).T.contiguous()
    if bias is not None:
        outputs_NO += bias
    return outputs_NO.view(*input.shape[:-1], len(weight))


def _has_few_rows(input: Tensor) -> bool:
    is_plain = input.dtype is torch.float32 and input.is_cpu and not torch.is_grad_enabled()
    return is_plain and 1 <= input.numel() // input.shape[-1] <= _MOST_ROWS


def _by_blocks(rows_ND: Tensor, weight_OD: Tensor) -> Tensor:
    """float[N, O] of blocks of the weight's rows, each on a core of its own, and of the rows that are left over."""
    num_blocks = max(_FEWEST_BLOCKS, torch.get_num_threads())
    height = len(weight_OD) // num_blocks // _CACHE_LINE * _CACHE_LINE
    blocks_PHD = weight_OD[: num_blocks * height].unflatten(0, (num_blocks, height))
    products_PNH = torch.bmm(rows_ND.expand(num_blocks, -1, -1), blocks_PHD.mT)
    outputs_NO, rest_OD = products_PNH.transpose(0, 1).flatten(1), weight_OD[num_blocks * height :]
    return torch.cat([outputs_NO, rows_ND @ rest_OD.T], dim=1) if len(rest_OD) else outputs_NO


def replace_linears(model: nn.Module) -> None:
    """Let every plain `nn.Linear` of a frozen model be a `FewRowsLinear` with the same parameters."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FewRowsLinear


def lay_out_by_columns(layer: nn.Linear) -> None:
    """Keep the weight of a wide map column after column on a CPU, where a single row is then multiplied faster.

    A parameter that is tied to it, such as a word table, stays tied; looking up its rows becomes slower.
    """
    if layer.weight.is_cpu:
        layer.weight.data = layer.weight.data.T.contiguous().T
