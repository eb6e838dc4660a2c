"""Captions and pictures of CC3M and COCO: drawn, found both ways, described; and distances of sets of pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from evals.harness import coco
from evals.harness.features import InceptionFeatures
from evals.harness.items import Item
from evals.harness.runs import read_run
from evals.harness.sets import SET_MEASURES
from evals.harness.systems import ChanceSystem
from evals.score import load_groups
from gill.backbones import Clip
from gill.errors import DataError, MissingFileError
from tests.evals.benchmark_files import CAPTIONS, NUM_STORIES, by_chance, rewrite, write_captions, write_coco

CLIP = "checkpoints/flatland/clip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


# What is asked


def test_both_files_of_coco_ask_the_same(folder: Path) -> None:
    split, _, _ = coco.read_pictures(folder, [coco.KARPATHY])
    official, left_out, notes = coco.read_pictures(folder, coco.OFFICIAL)
    assert split == official and len(split) == NUM_STORIES
    assert (left_out, notes) == ({}, {})
    assert [len(picture.captions) for picture in split] == [2] * NUM_STORIES
    assert split[0].path.is_file() and split[0].name == "000000000007"


def test_order_and_repetition_of_captions_change_nothing(folder: Path) -> None:
    before = coco.read_pictures(folder, coco.OFFICIAL)[0]

    def shuffle(told: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = told["annotations"] + [{**told["annotations"][0], "caption": "said twice"}]
        extra = [{"image_id": 8, "id": 1000 + number, "caption": f"one more {number}"} for number in range(4)]
        stray = [{"image_id": 99, "id": 5000, "caption": "of nothing"}]
        random.Random(1).shuffle(told["images"])
        return {
            "images": told["images"] + [{"id": 55, "file_name": "x.jpg"}],
            "annotations": [*rows, *extra[::-1], *stray],
        }

    rewrite(folder / "annotations" / CAPTIONS, shuffle)
    after, left_out, notes = coco.read_pictures(folder, coco.OFFICIAL)
    assert after[0] == before[0] and after[2:] == before[2:]
    assert after[1].captions == (*before[1].captions, "one more 0", "one more 1", "one more 2")
    assert left_out == {"a picture without a caption": 1, "a caption of a picture that is not listed": 1}
    assert notes == {
        "captions whose id occurs twice (the first counts)": 1,
        "captions beyond the fifth of a picture": 1,
    }


def test_a_sample_of_pictures_is_drawn_by_lot(folder: Path) -> None:
    reading = coco.read_generation(folder, "corrected", "caption")
    asked = [item.id for item in reading.items]
    assert sorted(asked) != asked and len(set(asked)) == NUM_STORIES
    (folder / "annotations" / CAPTIONS).rename(folder / CAPTIONS)
    rewrite(folder / CAPTIONS, lambda told: {**told, "images": told["images"][::-1]})
    assert [item.id for item in coco.read_generation(folder, "corrected", "caption").first(3).items] == asked[:3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told["annotations"], "not laid out as COCO"),
        (lambda told: {**told, "annotations": [{"id": 1}]}, "image_id"),
    ],
)
def test_annotations_of_another_form_are_refused(folder: Path, change: Callable[[Any], Any], message: str) -> None:
    rewrite(folder / "annotations" / CAPTIONS, change)
    with pytest.raises(DataError, match=message):
        coco.read_pictures(folder, coco.OFFICIAL)
    with pytest.raises(MissingFileError, match="give COCO's folder"):
        coco.read_pictures(folder / "val2014", coco.OFFICIAL)


def test_a_picture_that_is_missing_is_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "val2014" / "COCO_val2014_000000000008.jpg").unlink()
    run = read_run(by_chance("coco-retrieval", folder, tmp_path / "run"))
    assert len(run.answered) == 2 * NUM_STORIES - 2
    assert run.left_out() == {"question: a picture is missing": 2, "picture: a picture is missing": 1}


# Found


def test_captions_and_pictures_find_each_other(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Second captions point at the next picture: half the captions hit, and every picture but none loses its best."""
    eye = torch.eye(NUM_STORIES)

    def embed(self: ChanceSystem, items: Sequence[Item], seeds: Sequence[int]) -> Tensor:
        rows = []
        for item in items:
            own = int(item.target) - 7
            is_second = item.is_question and item.id.endswith("-2")
            rows.append(eye[(own + 1) % NUM_STORIES] * 2 if is_second else eye[own])
        return torch.stack(rows)

    monkeypatch.setattr(ChanceSystem, "embed", embed)
    (group,) = load_groups([by_chance("coco-retrieval", folder, tmp_path / "run")], CLIP)
    # A caption finds its picture: all the first ones, none of the second ones, whose picture ties with four others.
    assert group.estimate("r@1").mean == 0.5 and group.estimate("r@1").num_items == 2 * NUM_STORIES
    # A picture is shouted at by another picture's second caption, so its own first caption comes second.
    assert (group.estimate("i2t_r@1").mean, group.estimate("i2t_r@5").mean) == (0, 1)
    assert group.estimate("i2t_r@1").num_items == group.scores[0].gallery_size == NUM_STORIES


# Described


def test_every_caption_of_a_picture_is_right(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {each.name: each for each in coco.read_pictures(folder, coco.OFFICIAL)[0]}
    monkeypatch.setattr(
        ChanceSystem,
        "describe",
        lambda self, items, seeds, num_tokens: [pictures[each.id].captions[int(each.id) % 2] for each in items],
    )
    (group,) = load_groups([by_chance("coco-captioning", folder, tmp_path / "run")], CLIP)
    assert group.estimate("bleu1").mean == pytest.approx(1) and group.estimate("rouge_l").mean == pytest.approx(1)


# Drawn


def draw_the_truth(run: Path) -> None:
    found = read_run(run)
    for line in found.answered:
        with Image.open(Path(found.manifest["data"]) / line["truth"]) as true:
            true.save(run / line["output"])


def test_a_set_of_true_pictures_is_at_no_distance(folder: Path, tmp_path: Path) -> None:
    right, wrong = (by_chance("coco-generation", folder, tmp_path / name, "--label", name) for name in ("one", "other"))
    draw_the_truth(right)
    one, other = load_groups([right, wrong], CLIP, fid_name=CLIP)
    assert one.estimate("fid").mean == pytest.approx(0, abs=1e-6) and other.estimate("fid").mean > 0.001
    assert one.difference(other, "fid").mean == pytest.approx(-other.estimate("fid").mean, abs=1e-5)
    assert one.estimate("clip_similarity").mean == pytest.approx(1)
    clip = Clip(CLIP)
    pictures = coco.read_pictures(folder, coco.OFFICIAL)[0]
    texts = clip.embed_texts([each.captions[0] for each in pictures])
    images = clip.embed_pictures([Image.open(each.path).convert("RGB") for each in pictures])
    assert one.estimate("clip_text_similarity").mean == pytest.approx(float((texts * images).sum(1).mean()), abs=1e-4)
    (without,) = load_groups([right], CLIP)
    assert "fid" not in without.measures


def test_captions_of_a_cc3m_file_are_drawn(tmp_path: Path) -> None:
    world = write_captions(tmp_path / "world")
    table = world / "dataset" / "cc3m_val.tsv"
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join([*rows, rows[-1], "no pair\n"]))
    run = by_chance("cc3m-generation", world, tmp_path / "run")
    found = read_run(run)
    assert [line["prompt"] for line in found.answered] == [[row.split("\t")[0]] for row in [*rows[1:], rows[-1]]]
    assert found.left_out() == {"a line that is no pair": 1}
    assert found.reading["notes"] == {"lines whose picture had one already (each counts)": 1}
    draw_the_truth(run)
    (group,) = load_groups([run], CLIP, fid_name=CLIP)
    assert group.estimate("judge.whole").mean == 1 and group.estimate("kid").num_items == NUM_STORIES + 1


def test_distances_of_sets_are_of_drawn_and_true_features() -> None:
    # Drawn +-1, true -2 and 4: means 0 and 1, unbiased variances 4 / 3 and 12.
    rows = torch.tensor([[-1.0, -2.0], [1.0, 4.0], [-1.0, -2.0], [1.0, 4.0]])
    assert SET_MEASURES["fid"].score(rows) == pytest.approx(1 + ((4 / 3) ** 0.5 - 12**0.5) ** 2)
    # Kernel (x y + 1)^3 of width 1. Drawn 1, 1: 8. True 0, 0: 1. Between: 1.
    assert SET_MEASURES["kid"].score(torch.tensor([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(8 + 1 - 2)


def test_inception_sees_the_bytes_of_pictures_of_any_size() -> None:
    def mean_colour(pixels: Tensor) -> tuple[Tensor]:
        assert pixels.dtype == torch.uint8 and pixels.dim() == 4
        return (pixels.double().mean((2, 3)),)

    pictures = [Image.new("RGB", (4, 6), (10, 20, 250)), Image.new("L", (3, 3), 7)]
    assert InceptionFeatures(mean_colour)(pictures).tolist() == [[10, 20, 250], [7, 7, 7]]
