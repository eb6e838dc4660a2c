"""Choose the next token of each row: greedy, by temperature, by nucleus (arXiv:1904.09751), among the likeliest few.

Every row draws from a generator of its own, so what a row says does not depend on the rows beside it.

Shape legend: B = rows, K = vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gill.errors import ShapeError


def choose_tokens(
    logits_BK: Tensor,
    generators: Sequence[torch.Generator],
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
) -> Tensor:
    """The next token of each row.

    Args:
        logits_BK: float[B, K]; -inf is never chosen, and each row has an entry above it.
        generators: one a row, on the CPU; each is advanced by one draw, unless the choice is greedy.
        temperature: 0 takes the likeliest token, the first of equals.
        top_p: in (0, 1], keeps the fewest likeliest tokens that hold this much probability.
        top_k: keeps so many of the likeliest tokens; 0 keeps all.

    Returns:
        int64[B], on the device of the logits.

    Raises:
        ShapeError: not one generator a row.
    """
    if len(generators) != len(logits_BK):
        raise ShapeError(f"each row needs a generator of its own: got {len(generators)} for {len(logits_BK)} rows")
    if temperature == 0:
        return logits_BK.argmax(-1)
    cumulative_BK = kept_probabilities(logits_BK, temperature, top_p, top_k).cumsum(-1)
    draws = [torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators]
    threshold_B1 = torch.stack(draws).to(logits_BK.device) * cumulative_BK[:, -1:]
    return (cumulative_BK <= threshold_B1).sum(-1)


def kept_probabilities(logits_BK: Tensor, temperature: float, top_p: float = 1.0, top_k: int = 0) -> Tensor:
    """float64[B, K] probabilities at a temperature, 0 where `choose_tokens` never goes; rows need not sum to one."""
    probabilities_BK = (logits_BK.double() / temperature).softmax(-1)
    if top_p == 1 and not top_k:
        return probabilities_BK
    sorted_BK, ids_BK = probabilities_BK.sort(dim=-1, descending=True, stable=True)
    is_kept_BK = sorted_BK.cumsum(-1) - sorted_BK < top_p  # the token that crosses the mass is kept
    if top_k:
        is_kept_BK[:, top_k:] = False
    return torch.zeros_like(probabilities_BK).scatter(1, ids_BK, sorted_BK.where(is_kept_BK, 0))
