"""What the language model reads, on examples small enough to check by eye."""

import itertools
import random
from dataclasses import replace

import torch

from gill.models.gill.packing import attention_mask, pack
from gill.models.gill.sequence import (
    TokenRows,
    Vocabulary,
    captioning_rows,
    count_captioning_labels,
    count_text_labels,
    text_rows,
)
from gill.types import IMAGE_SLOT, Batch

WORDS = Vocabulary(num_words=100, num_img_tokens=2, num_visual_tokens=3)
BRACKETS = Vocabulary(100, 2, 1, opening=(40,), closing=(41,), prefix=(7,))


def batch_of(*texts: list[int], is_paired: bool = False) -> Batch:
    """Texts with a feature each, and one for each picture inside."""
    lengths = torch.tensor([len(text) for text in texts])
    ids = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    num_slots = int((ids == IMAGE_SLOT).sum())
    context = torch.zeros(num_slots, 5) if num_slots else None
    return Batch(ids, lengths, torch.zeros(len(texts), 5), context, is_paired=is_paired)


def lists(rows: TokenRows) -> tuple[list[list[int]], list[list[int]]]:
    """(ids, labels) row by row."""
    cut = [(rows.rows == row).nonzero()[:, 0] for row in range(rows.num_rows)]
    return [rows.ids[places].tolist() for places in cut], [rows.labels[places].tolist() for places in cut]


def test_captioning_reads_the_picture_and_labels_the_text() -> None:
    ids, labels = lists(captioning_rows(batch_of([2, 10, 11], [2, 12]), WORDS, True))
    assert ids == [[102, 103, 104, 2, 10, 11], [105, 106, 107, 2, 12]]
    assert labels == [[-100, -100, -100, 2, 10, 11], [-100, -100, -100, 2, 12]]


def test_the_text_pass_labels_the_text_and_the_first_img_token() -> None:
    ids, labels = lists(text_rows(batch_of([2, 10, 11], [2, 12]), WORDS, True, True))
    assert ids == [[2, 10, 11, 100, 101], [2, 12, 100, 101]]
    assert labels == [[2, 10, 11, 100, -100], [2, 12, 100, -100]]


def test_joined_captions_share_a_row_and_drop_the_second_start() -> None:
    batch = batch_of([2, 10], [2, 12, 13], is_paired=True)
    ids, labels = lists(captioning_rows(batch, WORDS, True))
    assert ids == [[102, 103, 104, 2, 10, 105, 106, 107, 12, 13]]
    assert labels == [[-100] * 3 + [2, 10] + [-100] * 3 + [12, 13]]
    assert lists(captioning_rows(batch, WORDS, False))[0] == [[102, 103, 104, 2, 10, 105, 106, 107, 2, 12, 13]]


def test_nothing_is_labelled_after_the_first_img_token_of_joined_texts() -> None:
    batch = batch_of([2, 10], [2, 12, 13], is_paired=True)
    ids, labels = lists(text_rows(batch, WORDS, True, True))
    assert ids == [[2, 10, 100, 101, 12, 13, 100, 101]]
    assert labels == [[2, 10, 100, -100, -100, -100, -100, -100]]
    assert len(lists(text_rows(batch, WORDS, False, False))[0]) == 2


def test_pictures_inside_texts_become_visual_tokens_between_brackets() -> None:
    batch = batch_of([2, 10, IMAGE_SLOT, 11], [2, 12])
    ids, labels = lists(text_rows(batch, BRACKETS, True, True))
    assert ids == [[7, 2, 10, 40, 104, 41, 11, 100, 101], [7, 2, 12, 100, 101]]  # 102, 103 are the paired pictures
    assert labels == [[-100, 2, 10, -100, -100, -100, 11, 100, -100], [-100, 2, 12, 100, -100]]
    assert lists(captioning_rows(batch, BRACKETS, True))[0] == [[40, 103, 41, 7, 2, 12]]


def test_a_text_that_does_not_describe_its_picture_is_read_and_not_said_of_it() -> None:
    batch = replace(batch_of([2, 10, 11], [2, 12]), undescribed_rows=(0,))
    assert lists(captioning_rows(batch, WORDS, True))[0] == [[105, 106, 107, 2, 12]]
    assert lists(text_rows(batch, WORDS, True, True))[0] == [[2, 10, 11, 100, 101], [2, 12, 100, 101]]
    assert lists(captioning_rows(replace(batch, is_paired=True), WORDS, True))[0] == []


def test_a_first_token_is_no_label_unless_something_stands_before_it() -> None:
    rows = text_rows(batch_of([2, 10]), WORDS, True, True)
    assert rows.label_places.tolist() == [1, 2]
    assert text_rows(batch_of([2, 10]), BRACKETS, True, True).label_places.tolist() == [1, 2, 3]


def test_labels_are_counted_as_the_rows_have_them() -> None:
    """Random texts, also empty ones, ones that open with a picture, and ones that do not describe theirs."""
    draw = random.Random(0)
    settings = itertools.product((WORDS, BRACKETS), (False, True), (False, True), (False, True), range(12))
    for vocabulary, is_paired, joins, drops, _ in settings:
        texts = [draw.choices([2, 10, 11, IMAGE_SLOT], [4, 4, 4, 1], k=draw.randint(0, 6)) for _ in range(6)]
        plain = batch_of(*texts, [2], [2, 10], is_paired=is_paired)
        batch = replace(plain, undescribed_rows=tuple(draw.sample(range(8), draw.randint(0, 3))))
        captioning = captioning_rows(batch, vocabulary, drops)
        assert count_captioning_labels(batch, drops) == len(captioning.label_places)
        text = text_rows(batch, vocabulary, joins, drops)
        assert count_text_labels(batch, vocabulary, joins) == len(text.label_places)


def test_packing_keeps_every_position_once_and_rows_apart() -> None:
    rows = text_rows(batch_of(*[[2] + [5] * n for n in (30, 3, 60, 9, 45, 21)]), WORDS, True, True)
    frozen, live = pack(rows, first_trainable_id=100)
    assert frozen is not None
    assert sorted(torch.cat([frozen.places, live.places]).tolist()) == list(range(len(rows.ids)))
    for grid in (frozen, live):
        assert torch.equal(grid.ids.flatten()[grid.cells], rows.ids[grid.places])
        assert torch.equal(grid.positions.flatten()[grid.cells], rows.positions[grid.places])
    mask = attention_mask(live, [frozen, live], torch.float32)
    assert mask.shape == (len(live.rows), 1, live.ids.shape[1], frozen.ids.shape[1] + live.ids.shape[1])
    for place, cell in zip(live.places, live.cells, strict=True):
        seen = (mask.view(-1, mask.shape[-1])[cell] == 0).sum()
        assert seen == rows.positions[place] + 1


def test_packing_wastes_little() -> None:
    lengths = torch.randint(8, 20, (64,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = text_rows(batch_of(*[[2] + [5] * n for n in lengths]), WORDS, True, True)
    frozen, _ = pack(rows, first_trainable_id=100)
    assert frozen is not None
    assert frozen.ids.numel() < 1.05 * len(frozen.places)


def test_the_parts_that_train_fill_their_bins() -> None:
    rows = text_rows(batch_of(*[[2] + [5] * n for n in range(8, 24)]), WORDS, True, True)
    _, live = pack(rows, first_trainable_id=100)
    assert live.ids.numel() == len(live.places) == 16 * 2  # bins of equally many rows: no pad


def test_long_rows_that_are_nearly_alike_do_not_share_a_bin() -> None:
    """Side by side, each would compute its attention to the other one too, only to mask it."""
    rows = text_rows(batch_of(*[[2] + [5] * n for n in [163, 164] * 8]), WORDS, True, True)
    frozen, _ = pack(rows, first_trainable_id=100)
    assert frozen is not None
    assert frozen.ids.shape == (16, 165)


def test_one_long_row_does_not_make_every_bin_as_wide() -> None:
    rows = text_rows(batch_of([2] + [5] * 300, *[[2] + [5] * 20] * 40), WORDS, True, True)
    frozen, _ = pack(rows, first_trainable_id=100)
    assert frozen is not None
    assert frozen.ids.numel() < 2 * len(frozen.places)


def test_a_last_token_that_nobody_asks_for_is_not_read() -> None:
    rows = captioning_rows(batch_of([2, 10, 11], [2, 12]), WORDS, True)
    frozen, live = pack(rows, 100, splits=False, reads_last=False)
    assert frozen is None
    assert sorted(rows.ids[live.places].tolist()) == sorted([102, 103, 104, 2, 10, 105, 106, 107, 2])
