"""Lay ragged rows out for the language model so that hardly a pad is computed.

Several rows share one bin, told apart by the attention mask and by their own positions. Rows are split where gradient
begins: what stands before the first trainable token of a row is run without gradient and leaves only keys and values.

Shape legend: S = positions of all rows, G = bins, W = width of the widest bin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gill.models.gill.sequence import TokenRows

# Unless a row is longer. Attention costs the square of it, at this size a hundredth of what OPT-125m's layers cost.
TOKENS_PER_BIN = 64
_TOKENS_A_LAYER_COSTS = 6 * 768  # a token's products in a layer of OPT-125m are as many as attention to so many tokens
EVERY_ROW = -2  # of positions that all rows of later grids see
_NO_ROW = -1


@dataclass(frozen=True)
class Grid:
    """Some positions of the rows on a G x W grid, the rest of it pads.

    Attributes:
        places: int64[n] flat places of the rows that stand here, ascending.
        cells: int64[n] their cells in the flattened grid.
        ids, positions, rows: int64[G, W]; a pad has row -1, what stands before all rows of later grids has row -2.
    """

    places: Tensor
    cells: Tensor
    ids: Tensor
    positions: Tensor
    rows: Tensor

    def to(self, device: torch.device) -> Grid:
        """The same grid elsewhere."""
        return Grid(*(getattr(self, name).to(device) for name in ("places", "cells", "ids", "positions", "rows")))


def pack(
    rows: TokenRows, first_trainable_id: int, splits: bool = True, reads_last: bool = True
) -> tuple[Grid | None, Grid]:
    """Split rows where gradient begins and lay both parts out in the same bins.

    Args:
        first_trainable_id: ids from here on carry gradient.
        splits: False leaves everything in the second part.
        reads_last: False leaves out the last position of every row, on which no other depends.

    Returns:
        (positions before the first trainable one of their row, or None if there are none; the others).
    """
    is_read = torch.ones_like(rows.ids, dtype=torch.bool)
    if not reads_last:
        is_read[torch.bincount(rows.rows).cumsum(0) - 1] = False
    is_live = is_read
    if splits:
        first = _first_positions(rows, rows.ids >= first_trainable_id)
        is_live = is_read & (rows.positions >= first[rows.rows])
    return _both_parts(rows, is_read, is_live)


def pack_ends(rows: TokenRows, count: int) -> tuple[Grid | None, Grid]:
    """Lay out what stands before the last `count` positions of every row, None if nothing does, and these positions."""
    is_end = rows.positions >= (torch.bincount(rows.rows) - count)[rows.rows]
    return _both_parts(rows, torch.ones_like(is_end), is_end)


def attention_mask(queries: Grid, keys: list[Grid], dtype: torch.dtype) -> Tensor:
    """float[G, 1, W, sum of key widths]: 0 where a query sees a key, the lowest number elsewhere.

    It sees its own row and what stands before every row, up to its own position.
    """
    key_rows = torch.cat([grid.rows for grid in keys], dim=1)[:, None, :]
    key_positions = torch.cat([grid.positions for grid in keys], dim=1)[:, None, :]
    sees = (queries.rows[:, :, None] == key_rows) | (key_rows == EVERY_ROW)
    sees &= key_positions <= queries.positions[:, :, None]
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return mask.masked_fill_(~sees, torch.finfo(dtype).min)[:, None]


def _both_parts(rows: TokenRows, is_read: Tensor, is_later: Tensor) -> tuple[Grid | None, Grid]:
    bins = _assign_bins(torch.bincount(rows.rows[is_read], minlength=rows.num_rows))
    is_earlier = is_read & ~is_later
    return _grid(rows, is_earlier, bins) if bool(is_earlier.any()) else None, _grid(rows, is_later, bins)


def _first_positions(rows: TokenRows, is_wanted: Tensor) -> Tensor:
    far = torch.full((rows.num_rows,), len(rows.ids))
    return far.scatter_reduce(0, rows.rows[is_wanted], rows.positions[is_wanted], "amin")


def _assign_bins(lengths: Tensor) -> Tensor:
    """int64[rows] bin of each row: equally many rows in each, whose ends are alike, and the cheaper of two counts."""
    num_wanted = max(1, round(int(lengths.sum()) / max(TOKENS_PER_BIN, int(lengths.max()))))
    fewer, more = max(1, len(lengths) // num_wanted), math.ceil(len(lengths) / num_wanted)
    dealt = [_deal(lengths, math.ceil(len(lengths) / rows_per_bin)) for rows_per_bin in dict.fromkeys((fewer, more))]
    return min(dealt, key=lambda bins: _cost(_filled(lengths, bins)))


def _deal(lengths: Tensor, num_bins: int) -> Tensor:
    """Longest first, dealt to and fro, so that the bins fill evenly."""
    turn = torch.arange(len(lengths))
    seat, is_backward = turn % num_bins, turn // num_bins % 2 == 1
    dealt = torch.where(is_backward, num_bins - 1 - seat, seat)
    return torch.empty_like(dealt).scatter_(0, lengths.argsort(descending=True, stable=True), dealt)


def _filled(lengths: Tensor, bins: Tensor) -> Tensor:
    """int64[G] positions in each bin."""
    return torch.zeros(int(bins.max()) + 1, dtype=torch.long).index_add(0, bins, lengths)


def _cost(filled: Tensor) -> int:
    """Of a grid: every cell through the layers, and its attention to its whole line."""
    width = int(filled.max())
    return len(filled) * width * (_TOKENS_A_LAYER_COSTS + width)


def _grid(rows: TokenRows, is_here: Tensor, bins: Tensor) -> Grid:
    places = is_here.nonzero()[:, 0]
    row = rows.rows[places]
    lengths = torch.bincount(row, minlength=rows.num_rows)
    offsets = _offsets_in_bin(lengths, bins)
    filled = _filled(lengths, bins)
    num_bins, width = len(filled), int(filled.max())
    within = torch.arange(len(places)) - (lengths.cumsum(0) - lengths)[row]
    cells = bins[row] * width + offsets[row] + within
    empty = torch.zeros(num_bins * width, dtype=torch.long)
    shape = (num_bins, width)
    return Grid(
        places=places,
        cells=cells,
        ids=empty.index_copy(0, cells, rows.ids[places]).view(shape),
        positions=empty.index_copy(0, cells, rows.positions[places]).view(shape),
        rows=empty.add(_NO_ROW).index_copy(0, cells, row).view(shape),
    )


def _offsets_in_bin(lengths: Tensor, bins: Tensor) -> Tensor:
    order = bins.argsort(stable=True)
    before = lengths[order].cumsum(0) - lengths[order]
    first_of_bin = torch.searchsorted(bins[order], torch.arange(int(bins.max()) + 1))
    return torch.empty_like(before).scatter_(0, order, before - before[first_of_bin[bins[order]]])
