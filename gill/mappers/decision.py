"""Choose between drawing a new picture and fetching an existing one (GILL, arXiv:2305.17216, section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

GENERATE, RETRIEVE = 0, 1  # columns of the logits, as in the released classifier
_DROPOUT = 0.5


class DecisionHead(nn.Module):
    """Linear classifier on the hidden state of [IMG0]: float[B, D] -> float[B, 2] logits (generate, retrieve).

    Args:
        report: how it was trained and what it scores, plain values that are saved with it.
    """

    def __init__(self, hidden_width: int, report: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.report = dict(report or {})
        self.dropout = nn.Dropout(_DROPOUT)
        self.linear = nn.Linear(hidden_width, 2)

    def forward(self, hidden_BD: Tensor) -> Tensor:
        """float[B, 2] logits."""
        return self.linear(self.dropout(hidden_BD))
