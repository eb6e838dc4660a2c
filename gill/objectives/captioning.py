"""Next-token cross entropy over a vocabulary of which only the last R rows train.

The softmax runs over K frozen rows and R trainable [IMG] rows. With the frozen part's log Z (log of its summed
exponentials) known, the loss of one token is `logaddexp(log Z, logsumexp(img logits)) - target logit`. Where the hidden
states are frozen too, log Z is a constant and gradient touches R numbers a token instead of K + R; where they are not,
log Z brings its gradient with it (the expected row), so no logits are kept for the backward pass.

Shape legend: N = labelled tokens, K = frozen vocabulary, R = [IMG] tokens, D = head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gill.errors import ShapeError

_LOGITS_AT_ONCE = 2**24  # numbers; 64 MiB of float32, so memory does not grow with the batch


def token_cross_entropy(
    hidden_ND: Tensor, labels_N: Tensor, frozen_KD: Tensor, frozen_bias_K: Tensor | None, img_rows_RD: Tensor
) -> Tensor:
    """Cross entropy of each token.

    Args:
        hidden_ND: float[N, D], the state that predicts each label; gradient flows into it where it requires one.
        labels_N: int64[N] in [0, K + R); K + r is [IMGr].
        frozen_KD: float[K, D] frozen head rows, no gradient.
        frozen_bias_K: float[K] or None.
        img_rows_RD: float[R, D] trainable head rows.

    Returns:
        float32 (float64 for float64 input)[N], in nats.

    Raises:
        ShapeError: states and labels do not pair up.
    """
    if hidden_ND.shape[0] != labels_N.shape[0]:
        raise ShapeError(f"one label a state: got {hidden_ND.shape[0]} states and {labels_N.shape[0]} labels")
    num_frozen = len(frozen_KD)
    log_z_N = _FrozenLogZ.apply(hidden_ND, frozen_KD, frozen_bias_K)
    img_logits_NR = _wide(hidden_ND @ img_rows_RD.to(hidden_ND.dtype).T)
    frozen_labels_N = labels_N.clamp(max=num_frozen - 1)
    target_N = (_wide(hidden_ND) * _wide(frozen_KD[frozen_labels_N])).sum(-1)
    if frozen_bias_K is not None:
        target_N = target_N + _wide(frozen_bias_K[frozen_labels_N])
    img_target_N = img_logits_NR.gather(1, (labels_N - num_frozen).clamp(min=0)[:, None])[:, 0]
    target_N = torch.where(labels_N >= num_frozen, img_target_N, target_N)
    return torch.logaddexp(log_z_N, img_logits_NR.logsumexp(-1)) - target_N


@torch.no_grad()
def label_ranks(
    hidden_ND: Tensor, labels_N: Tensor, frozen_KD: Tensor, frozen_bias_K: Tensor | None, img_rows_RD: Tensor
) -> Tensor:
    """How many tokens are likelier than the label: int64[N], 0 = first. Arguments as `token_cross_entropy`."""
    ranks = []
    for start, stop in _chunks(len(hidden_ND), len(frozen_KD)):
        hidden = hidden_ND[start:stop]
        logits = torch.cat(
            [_logits(hidden, frozen_KD, frozen_bias_K), _wide(hidden @ img_rows_RD.to(hidden.dtype).T)], 1
        )
        ranks.append((logits > logits.gather(1, labels_N[start:stop, None])).sum(1))
    return torch.cat(ranks) if ranks else labels_N.new_zeros(0)


class _FrozenLogZ(torch.autograd.Function):
    """log of the summed exponentials over the frozen rows, and its gradient: the expected row under the softmax."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, frozen_KD: Tensor, frozen_bias_K: Tensor | None) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        log_z, expected_row = [], []
        for start, stop in _chunks(len(hidden_ND), len(frozen_KD)):
            logits = _logits(hidden_ND[start:stop], frozen_KD, frozen_bias_K)
            highest = logits.amax(-1, keepdim=True)
            terms = logits.sub_(highest).exp_()  # in place: the logits are most of the memory and much of the time
            total = terms.sum(-1, keepdim=True)
            log_z.append((highest + total.log())[:, 0])
            if needs_gradient:
                expected_row.append((terms.to(frozen_KD.dtype) @ frozen_KD) / total.to(frozen_KD.dtype))
        if needs_gradient:
            ctx.save_for_backward(torch.cat(expected_row) if expected_row else hidden_ND.detach())
        return torch.cat(log_z) if log_z else _wide(hidden_ND).sum(-1)

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, None, None]:
        (expected_row_ND,) = ctx.saved_tensors
        return (grad_N[:, None] * expected_row_ND).to(expected_row_ND.dtype), None, None


def _logits(hidden_ND: Tensor, frozen_KD: Tensor, frozen_bias_K: Tensor | None) -> Tensor:
    return _wide(torch.nn.functional.linear(hidden_ND, frozen_KD, frozen_bias_K))


def _wide(tensor: Tensor) -> Tensor:
    # bf16 sums over 50,000 terms lose digits: at least float32
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _chunks(num_rows: int, num_columns: int) -> list[tuple[int, int]]:
    size = max(1, _LOGITS_AT_ONCE // num_columns)
    return [(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
