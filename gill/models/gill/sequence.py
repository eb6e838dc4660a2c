"""What the language model reads in each pass, as flat rows of ids and labels.

One id space holds everything a position can be: words [0, K), [IMG] tokens [K, K + R), and from K + R on the visual
tokens, V for each picture. Rows are ragged and lie one after the other, so no pad exists and every rule below is a
tensor operation over all positions at once.

Captioning reads `[visual][prefix][text]` and labels the text; the text pass reads `[prefix][text][IMG0 ... IMG(R-1)]`
and labels the text and [IMG0]. Joined neighbours (2i, 2i + 1) share a row; in the text pass nothing after the first
[IMG0] is labelled. A text may hold places for pictures, which become visual tokens and are never labels.

Shape legend: B = samples, S = positions of all rows, R = [IMG] tokens, V = visual tokens a picture, K = words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gill.errors import ShapeError
from gill.types import IGNORED_LABEL, IMAGE_SLOT, Batch


@dataclass(frozen=True)
class Vocabulary:
    """The id space, and the words that stand in fixed places.

    Attributes:
        num_words: K, frozen rows of the language model in use; [IMG0] is id K.
        num_img_tokens: R. num_visual_tokens: V.
        opening, closing: word ids before and after every picture, e.g. of "(" and ")".
        prefix: word ids before every text, e.g. of "A picture of".
    """

    num_words: int
    num_img_tokens: int
    num_visual_tokens: int
    opening: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Ids the softmax runs over."""
        return self.num_words + self.num_img_tokens

    def picture_ids(self, pictures: Tensor) -> Tensor:
        """int64[N] picture numbers -> int64[N, opening + V + closing]."""
        visual = self.size + pictures[:, None] * self.num_visual_tokens + torch.arange(self.num_visual_tokens)
        around = [torch.tensor(ids, dtype=torch.long).expand(len(pictures), -1) for ids in (self.opening, self.closing)]
        return torch.cat([around[0], visual, around[1]], dim=1)


@dataclass(frozen=True)
class TokenRows:
    """Ragged rows of tokens, one after the other; all int64[S].

    Attributes:
        ids: see the module. labels: the id itself where it is to be predicted, -100 elsewhere.
        rows: row number, ascending. positions: place within the row, from 0.
    """

    ids: Tensor
    labels: Tensor
    rows: Tensor
    positions: Tensor

    @property
    def num_rows(self) -> int:
        """Rows, counting from 0 without gaps."""
        return int(self.rows[-1]) + 1 if len(self.rows) else 0

    @property
    def label_places(self) -> Tensor:
        """Flat places of labels that have a predecessor in their row, so that something predicts them."""
        return ((self.labels != IGNORED_LABEL) & (self.positions > 0)).nonzero()[:, 0]

    def img_places(self, vocabulary: Vocabulary) -> Tensor:
        """int64[B, R] flat places of the [IMG] tokens, sample by sample."""
        is_img = (self.ids >= vocabulary.num_words) & (self.ids < vocabulary.size)
        return is_img.nonzero()[:, 0].view(-1, vocabulary.num_img_tokens)

    def padded(self, values: Tensor, width: int, fill: int) -> Tensor:
        """int64[rows, width]: `values` of the flat places, right-padded with `fill`."""
        grid = torch.full((self.num_rows, width), fill)
        grid[self.rows, self.positions] = values
        return grid


@dataclass(frozen=True)
class _Block:
    """Consecutive tokens of every sample: flat ids and labels, and how many each sample has."""

    ids: Tensor
    labels: Tensor
    counts: Tensor


def captioning_rows(batch: Batch, vocabulary: Vocabulary, drops_second_bos: bool) -> TokenRows:
    """Rows of the captioning pass: pictures describe themselves.

    Samples whose text holds pictures, or does not describe theirs, have no captioning row (joined: nor has their
    neighbour).

    Args:
        drops_second_bos: of two joined samples the second loses its beginning-of-sequence token.
    """
    samples = _plain_samples(batch)
    picture = vocabulary.picture_ids(samples)
    is_text = _text_mask(batch, drops_second_bos)
    is_text[_others(samples, len(batch))] = False
    blocks = [
        _constant(picture.flatten(), _counts_at(samples, len(batch), picture.shape[1])),
        _repeated(vocabulary.prefix, _counts_at(samples, len(batch), len(vocabulary.prefix))),
        _Block(batch.text_ids[is_text], batch.text_ids[is_text], is_text.sum(1)),
    ]
    return _rows(blocks, batch.is_paired)


def text_rows(batch: Batch, vocabulary: Vocabulary, joins: bool, drops_second_bos: bool) -> TokenRows:
    """Rows of the text pass: texts end in the [IMG] tokens.

    Args:
        joins: paired samples share a row here too.
        drops_second_bos: as `captioning_rows`.
    """
    is_joined = joins and batch.is_paired
    everyone = torch.ones(len(batch), dtype=torch.long)
    img_ids = torch.arange(vocabulary.num_words, vocabulary.size)
    img_labels = torch.full_like(img_ids, IGNORED_LABEL)
    img_labels[0] = img_ids[0]  # [IMG1] ... follow by rule, so nothing has to predict them
    blocks = [
        _repeated(vocabulary.prefix, everyone * len(vocabulary.prefix)),
        _expand_pictures(batch, vocabulary, _text_mask(batch, drops_second_bos and is_joined)),
        _Block(img_ids.repeat(len(batch)), img_labels.repeat(len(batch)), everyone * len(img_ids)),
    ]
    if is_joined:
        blocks = [_without_second_labels(block) for block in blocks]
    return _rows(blocks, is_joined)


def count_captioning_labels(batch: Batch, drops_second_bos: bool) -> int:
    """Label places of `captioning_rows`, without laying them out: a picture stands before every text."""
    return int(_text_mask(batch, drops_second_bos)[_plain_samples(batch)].sum())


def count_text_labels(batch: Batch, vocabulary: Vocabulary, joins: bool) -> int:
    """Label places of `text_rows`, without laying them out: all words and an [IMG0] each, but what opens a row."""
    is_labelled = slice(None, None, 2 if joins and batch.is_paired else 1)
    ids, lengths = batch.text_ids[is_labelled], batch.text_lengths[is_labelled]
    is_word = (torch.arange(ids.shape[1]) < lengths[:, None]) & (ids != IMAGE_SLOT)
    opens_row = (is_word[:, 0] | (lengths == 0)) & (not vocabulary.prefix)
    return int(is_word.sum()) + len(ids) - int(opens_row.sum())


def _text_mask(batch: Batch, drops_second_bos: bool) -> Tensor:
    is_text = torch.arange(batch.text_ids.shape[1]) < batch.text_lengths[:, None]
    if drops_second_bos and batch.is_paired:
        is_text[1::2, 0] = False
    return is_text


def _plain_samples(batch: Batch) -> Tensor:
    is_plain = (batch.text_ids != IMAGE_SLOT).all(1)
    is_plain[list(batch.undescribed_rows)] = False
    if batch.is_paired:
        is_plain = is_plain.view(-1, 2).all(1).repeat_interleave(2)
    return is_plain.nonzero()[:, 0]


def _others(samples: Tensor, num_samples: int) -> Tensor:
    is_other = torch.ones(num_samples, dtype=torch.bool)
    is_other[samples] = False
    return is_other


def _counts_at(samples: Tensor, num_samples: int, count: int) -> Tensor:
    return torch.zeros(num_samples, dtype=torch.long).index_fill(0, samples, count)


def _constant(ids: Tensor, counts: Tensor) -> _Block:
    return _Block(ids, torch.full_like(ids, IGNORED_LABEL), counts)


def _repeated(ids: Sequence[int], counts: Tensor) -> _Block:
    num_copies = int(counts.sum()) // max(len(ids), 1)
    return _constant(torch.tensor(ids, dtype=torch.long).repeat(num_copies), counts)


def _expand_pictures(batch: Batch, vocabulary: Vocabulary, is_text: Tensor) -> _Block:
    """Replace each picture's place by its visual tokens; pictures inside texts are numbered after the B paired ones."""
    symbols = batch.text_ids[is_text]
    is_slot = symbols == IMAGE_SLOT
    pictures = vocabulary.picture_ids(len(batch) + torch.arange(int(is_slot.sum())))
    widths = torch.where(is_slot, pictures.shape[1], 1)
    ids = symbols.repeat_interleave(widths)
    labels = ids.masked_fill(ids == IMAGE_SLOT, IGNORED_LABEL)
    ids[ids == IMAGE_SLOT] = pictures.flatten()
    sample = is_text.nonzero()[:, 0]
    return _Block(ids, labels, torch.zeros(len(batch), dtype=torch.long).index_add(0, sample, widths))


def _without_second_labels(block: _Block) -> _Block:
    is_second = (torch.arange(len(block.counts)) % 2 == 1).repeat_interleave(block.counts)
    return _Block(block.ids, block.labels.masked_fill(is_second, IGNORED_LABEL), block.counts)


def _rows(blocks: Sequence[_Block], is_joined: bool) -> TokenRows:
    """Lay the blocks of each sample one after the other, and samples into rows."""
    counts = torch.stack([block.counts for block in blocks], dim=1)
    starts = _exclusive_cumsum(counts.flatten()).view_as(counts)
    ids = torch.empty(int(counts.sum()), dtype=torch.long)
    labels = torch.empty_like(ids)
    for number, block in enumerate(blocks):
        if len(block.ids) != int(block.counts.sum()):
            raise ShapeError(f"a block of {len(block.ids)} tokens was said to hold {int(block.counts.sum())}")
        within = torch.arange(len(block.ids)) - _exclusive_cumsum(block.counts).repeat_interleave(block.counts)
        places = starts[:, number].repeat_interleave(block.counts) + within
        ids[places], labels[places] = block.ids, block.labels
    lengths = counts.sum(1)
    if is_joined:
        lengths = lengths.view(-1, 2).sum(1)
    lengths = lengths[lengths > 0]
    rows = torch.arange(len(lengths)).repeat_interleave(lengths)
    positions = torch.arange(len(ids)) - _exclusive_cumsum(lengths).repeat_interleave(lengths)
    return TokenRows(ids, labels, rows, positions)


def _exclusive_cumsum(counts: Tensor) -> Tensor:
    return counts.cumsum(0) - counts
