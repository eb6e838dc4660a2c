"""A prompt that is read once, and the texts that may follow it, side by side on its keys and values.

No text sees another: each attends to the prompt and to itself, at the positions it would have alone. The prompt's keys
and values are not copied, so a hundred answers to a dialogue cost its memory once.

Shape legend: N = tokens of the texts of one pass, D = hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from gill.backbones import decoding_cache
from gill.models.gill.model import GillModel
from gill.models.gill.packing import EVERY_ROW, Grid
from gill.models.gill.prompts import rows_of

# A text's tokens attend, masked, to those of all texts of the pass as well, which costs their square.
TOKENS_AT_ONCE = 256


@dataclass(frozen=True)
class Continued:
    """Texts of one pass, one behind the other.

    Attributes:
        before: float[N, D] state that each token follows, the prompt's last one for a text's first.
        at: float[N, D] state at each token.
        ids: of all tokens. lengths: of the texts.
    """

    before: Tensor
    at: Tensor
    ids: list[int]
    lengths: list[int]


class SharedPrompt:
    """One prompt of one or more ids, read when this is made; for use without gradient.

    Args:
        visual: float[pictures, V, D] of its visual ids.
    """

    def __init__(self, model: GillModel, ids: Sequence[int], visual: Tensor | None) -> None:
        self.model, self.cache = model, decoding_cache()
        grid = _one_line([ids], 0).to(model.device)
        self.grid = replace(grid, rows=torch.full_like(grid.rows, EVERY_ROW))
        self.last_1D = model.run(self.grid, model.embed(grid.ids, visual), [self.grid], self.cache)[-1:]

    def read(self, texts: Sequence[Sequence[int]]) -> Iterator[Continued]:
        """States of texts of one or more ids each, in their order, some at a time."""
        for part in _parts(texts):
            grid = _one_line(part, self.grid.ids.shape[1]).to(self.model.device)
            at = self.model.run(grid, self.model.embed(grid.ids), [self.grid, grid], self.cache)
            self.cache.crop(-len(at))
            lengths = [len(ids) for ids in part]
            starts = torch.tensor([0, *accumulate(lengths[:-1])], device=at.device)
            before = at.roll(1, 0).index_copy(0, starts, self.last_1D.expand(len(part), -1))
            yield Continued(before, at, [token for ids in part for token in ids], lengths)


def _parts(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Neighbouring texts of `TOKENS_AT_ONCE` together, unless one alone is longer."""
    part: list[Sequence[int]] = []
    for ids in texts:
        if part and sum(map(len, part)) + len(ids) > TOKENS_AT_ONCE:
            yield part
            part = []
        part.append(ids)
    if part:
        yield part


def _one_line(texts: Sequence[Sequence[int]], first_position: int) -> Grid:
    rows = rows_of(texts)
    places = torch.arange(len(rows.ids))
    return Grid(places, places, rows.ids[None], rows.positions[None] + first_position, rows.rows[None])
