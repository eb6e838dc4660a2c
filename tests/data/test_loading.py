"""Shares of a step, replaced and left-out samples, and the report of bad ones."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from gill.data import (
    BadSample,
    BadSamples,
    BatchOrder,
    CaptionFile,
    CaptionTable,
    Example,
    FlatlandSource,
    Share,
    training_steps,
    validation_batches,
)
from gill.data.loading import _plain_loss_of_workers
from gill.errors import ConfigError, DataError, UnknownNameError
from gill.flatland import read_caption, read_picture
from gill.types import IMAGE_SLOT, CaptionRecord, Sample


class LengthEncoder:
    """A stand-in for a tokenizer: one id a word, and the picture's red value as its feature."""

    def encode(self, record: CaptionRecord, image, context_images=(), conditioning_target=None) -> Sample:  # type: ignore[no-untyped-def]
        parts = record.context or ()
        words = [1] * len(record.caption.split()) if not parts else []
        for part in parts:
            words += [IMAGE_SLOT] if part.image is not None else [1] * len(str(part.text).split())
        feature = torch.tensor([float(image.getpixel((0, 0))[0])])
        context = tuple(torch.zeros(1) for _ in context_images)
        return Sample(torch.tensor([0, *words]), feature, context, record=record)


def captions(folder: Path, num_rows: int, broken: tuple[int, ...] = ()) -> CaptionFile:
    for index in range(num_rows):
        path = folder / f"{index}.png"
        path.write_text("broken") if index in broken else Image.new("RGB", (4, 4), (index, 0, 0)).save(path)
    rows = "".join(f"caption {index}\t{index}\n" for index in range(num_rows))
    (folder / "c.tsv").write_text("caption\timage\n" + rows)
    return CaptionFile(CaptionTable(folder / "c.tsv"), folder)


def images(source: CaptionFile, share: Share, steps: range = range(3), num_workers: int = 0) -> list[list[float]]:
    read = training_steps(
        source,
        LengthEncoder(),
        BatchOrder(len(source), 8, 0),
        share,
        steps,
        pair_probability=0.5,
        num_workers=num_workers,
    )
    return [torch.cat([batch.images[:, 0] for batch in step.batches]).tolist() for step in read]


def test_shares_add_up_to_the_whole_batch(tmp_path: Path) -> None:
    source = captions(tmp_path, 20)
    whole = images(source, Share())
    parts = [images(source, Share(rank, 2, 2)) for rank in (0, 1)]
    assert [one + two for one, two in zip(*parts, strict=True)] == whole


def test_workers_change_nothing(tmp_path: Path) -> None:
    source = captions(tmp_path, 20)
    assert images(source, Share(), num_workers=1) == images(source, Share())


def test_a_later_start_reads_the_same(tmp_path: Path) -> None:
    source = captions(tmp_path, 20)
    assert images(source, Share(), range(2, 3)) == images(source, Share())[2:]


def test_a_data_set_of_one_row_is_read(tmp_path: Path) -> None:
    assert images(captions(tmp_path, 1), Share(), range(1)) == [[0] * 8]


def test_pairs_are_never_split(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 16"):
        next(training_steps(captions(tmp_path, 4), LengthEncoder(), BatchOrder(4, 8, 0), Share(0, 8), range(1), 0.5))


def test_training_replaces_a_bad_sample_and_says_so(tmp_path: Path) -> None:
    source = captions(tmp_path, 8, broken=(3,))
    order = BatchOrder(8, 8, 0)
    (step,) = training_steps(source, LengthEncoder(), order, Share(), range(1))
    assert sorted(step.batches[0].images[:, 0].tolist()) == [0, 1, 2, 4, 4, 5, 6, 7]
    assert [(bad.line, step.num_tried) for bad in step.bad] == [(5, 9)]


def test_validation_never_replaces_one(tmp_path: Path) -> None:
    source = captions(tmp_path, 6, broken=(0, 1, 3))
    read = list(validation_batches(source, LengthEncoder(), range(6), 2))
    assert [None if batch is None else batch.images[:, 0].tolist() for batch, _ in read] == [None, [2], [4, 5]]
    assert [bad.line for _, found in read for bad in found] == [2, 3, 5]


def test_nothing_but_bad_samples_ends_the_run(tmp_path: Path) -> None:
    source = captions(tmp_path, 3, broken=(0, 1, 2))
    with pytest.raises(DataError, match="3 rows one after the other"):
        list(training_steps(source, LengthEncoder(), BatchOrder(3, 2, 0), Share(), range(1)))


def test_bad_samples_are_reported_once_and_capped(tmp_path: Path) -> None:
    report = tmp_path / "bad_samples.jsonl"
    bad = BadSamples(report, num_rows=10, max_fraction=0.2)
    for line in (3, 3, 4):
        bad.add([BadSample("c.tsv", line, f"c.tsv:{line}: broken")], num_tried=4)
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(row["source"], row["line"]) for row in rows] == [("c.tsv", 3), ("c.tsv", 4)]
    again = BadSamples(report, num_rows=10, max_fraction=0.2)
    again.add([BadSample("c.tsv", 3, "c.tsv:3: broken")], num_tried=4)
    assert len(report.read_text().splitlines()) == 2
    with pytest.raises(DataError, match=r"3 of 10 samples are bad.*c.tsv:5: broken.*--max-bad-fraction"):
        again.add([BadSample("c.tsv", 4, ""), BadSample("c.tsv", 5, "c.tsv:5: broken")], num_tried=6)


def _kind(example: Example) -> str:
    words = example.record.context[-1].text or ""
    if example.context_images:
        return "illustrated story"
    if words.startswith("Q:"):
        return "dialogue"
    try:
        read_caption(words)
    except ValueError:
        return "story"
    return "caption"


def test_rows_unusable_from_the_start_are_judged_against_the_whole_file() -> None:
    unusable = [BadSample("c.tsv", line, f"c.tsv:{line}: no tab") for line in range(2, 7)]
    bad = BadSamples(None, num_rows=995, max_fraction=0.01)
    bad.add_unusable(unusable)  # 5 of 1,000
    bad.add([BadSample("c.tsv", 9, "c.tsv:9: broken")], num_tried=4)
    assert len(bad) == 6
    with pytest.raises(DataError, match=r"5 of 400 samples are bad.*c.tsv:6: no tab"):
        BadSamples(None, num_rows=395, max_fraction=0.01).add_unusable(unusable)


def test_flatland_mixes_captions_and_contexts() -> None:
    examples = [FlatlandSource("train", 400, 0).read(index) for index in range(400)]
    kinds = [_kind(example) for example in examples]
    shares = {kind: kinds.count(kind) / 400 for kind in set(kinds)}
    expected = {"caption": 0.8, "illustrated story": 0.055, "story": 0.045, "dialogue": 0.1}
    assert shares == pytest.approx(expected, abs=0.03)
    for example in examples[:20]:
        seen, told = read_picture(example.image), read_caption(example.record.caption)  # type: ignore[arg-type]
        assert seen.content() == told.content()


def test_mixed_samples_come_in_pairs() -> None:
    """The canonical captions differ; an illustrated story has the same texts and other colours."""
    source = FlatlandSource("train", 400, 0)
    for index in range(0, 200, 2):
        first, second = source.read(index), source.read(index + 1)
        if _kind(first) == "caption":
            assert first.record.caption != second.record.caption
        if _kind(first) == "illustrated story":
            assert [p.text for p in first.record.context] == [p.text for p in second.record.context]
            looks = [
                [(thing.shape, thing.size, thing.cell) for thing in read_caption(each.record.caption).things]
                for each in (first, second)
            ]
            assert looks[0] == looks[1] and first.record.caption != second.record.caption


def test_flatland_without_contexts_is_the_papers_recipe() -> None:
    source = FlatlandSource("train", 100, 0, contexts="none")
    assert not any(source.read(index).record.context for index in range(30)) and source.group_size == 1
    with pytest.raises(UnknownNameError, match="mixed, none"):
        FlatlandSource("train", 100, 0, contexts="some")


def test_flatland_says_of_a_picture_what_tells_its_things_in_their_order() -> None:
    """Not a story or a dialogue that leads to it, nor a caption the other way round, of which there is one in four."""
    records = [FlatlandSource("train", 800, 0).read(index).record for index in range(800)]
    captions = [record for record in records if len(read_or_none(record)) == 2]
    for record in captions:
        words, (first, second) = record.context[0].text or "", read_or_none(record)
        assert record.describes == (words.index(first) < words.index(second))
    assert sum(record.describes for record in captions) / len(captions) == pytest.approx(0.75, abs=0.05)
    assert not any(record.describes for record in records if not read_or_none(record))
    assert all(FlatlandSource("train", 9, 0, contexts="none").read(index).record.describes for index in range(9))


def read_or_none(record: CaptionRecord) -> list[str]:
    """Shapes of the things that a caption read as a context tells, in reading order; none of another context."""
    try:
        return [thing.shape for thing in read_caption(record.context[0].text or "").things]
    except DataError:
        return []


@pytest.mark.parametrize(
    "error", [RuntimeError("DataLoader worker (pid 7) is killed"), ConnectionResetError(104, "reset"), EOFError()]
)
def test_a_reader_that_ends_in_whatever_way_is_told_plainly(error: Exception) -> None:
    """Killed between batches torch notices; killed while it hands one over, the connection breaks first."""
    with pytest.raises(DataError, match="a process that reads data has ended"), _plain_loss_of_workers():
        raise error
    with pytest.raises(RuntimeError, match="something else"), _plain_loss_of_workers():
        raise RuntimeError("something else")
