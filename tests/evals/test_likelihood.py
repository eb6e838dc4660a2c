"""Pictures and captions that find each other by likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from evals.generate import main as generate
from evals.harness import captions, likelihood
from evals.harness.items import MEAN, MEAN_WITH_BOS, SUM, Item
from evals.harness.runs import read_run
from evals.harness.systems import ChanceSystem, GillSystem
from evals.harness.tables import table
from evals.score import load_groups
from gill.types import Segment
from tests.evals.benchmark_files import CAPTIONS, NUM_STORIES, rewrite, write_captions, write_coco
from tests.models.gill.plain_decoding import random_pictures
from tests.models.gill.tiny_gill import tiny_generator

CLIP = "checkpoints/flatland/clip"


def test_groups_hold_each_caption_once(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco")
    whole = likelihood.read_coco(folder, "corrected", "picture")
    assert len(whole.items) == NUM_STORIES == len(set(whole.items[0].candidates)) and whole.left_out == {}
    assert [item.right for item in whole.items] == list(range(NUM_STORIES))

    def share(told: dict[str, list[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
        told["annotations"][2]["caption"] = told["annotations"][0]["caption"]
        return told

    (folder / "dataset_coco.json").unlink()
    rewrite(folder / "annotations" / CAPTIONS, share)
    fewer = likelihood.read_coco(folder, "corrected", "picture")
    assert fewer.left_out == {"a caption that another picture has": 1}
    assert set(whole.items[0].candidates) > set(fewer.items[0].candidates)


def test_pictures_beyond_the_last_whole_group_are_counted(tmp_path: Path) -> None:
    world = write_captions(tmp_path / "world")
    reading = likelihood.in_groups(captions.read_captioning(world, "corrected", "picture"), size=4)
    assert [len(item.candidates) for item in reading.items] == [4] * 4
    assert reading.left_out == {"a picture beyond the last whole group": NUM_STORIES - 4}


def test_captions_and_pictures_rank_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each caption is likeliest after its own picture; but the first is likelier than all others after any picture."""

    def rate(self: ChanceSystem, items: Sequence[Item], seeds: Sequence[int], rating: str) -> list[list[float]]:
        num = len(items[0].candidates)
        return [[(number == item.right) + 5.0 * (number == 0) for number in range(num)] for item in items]

    monkeypatch.setattr(ChanceSystem, "rate", rate)
    run = tmp_path / "run"
    words = ["cc3m-likelihood", str(run), "--data", str(write_captions(tmp_path / "world")), "--system", "chance"]
    assert generate(words) == 0
    (group,) = load_groups([run], CLIP)
    means = {name: group.estimate(name).mean for name in group.measures}
    assert means["r@1"] == pytest.approx(1 / NUM_STORIES) and means["r@5"] == 1
    assert means["t2i_r@1"] == 1 and group.scores[0].gallery_size == NUM_STORIES
    assert "ndcg" not in means and "`t2i_r@1`" in table([group], "cc3m-likelihood")[0]


def test_captions_of_which_few_were_asked_rank_no_pictures(tmp_path: Path) -> None:
    """Among three of six each picture would be found too easily."""
    words = ["--data", str(write_captions(tmp_path / "world")), "--system", "chance", "--limit", "3"]
    assert generate(["cc3m-likelihood", str(tmp_path / "run"), *words]) == 0
    (group,) = load_groups([tmp_path / "run"], CLIP)
    assert "r@1" in group.measures and "t2i_r@1" not in group.measures


def test_a_picture_that_is_missing_leaves_its_caption_among_the_candidates(tmp_path: Path) -> None:
    folder = write_coco(tmp_path / "coco")
    (folder / "val2014" / "COCO_val2014_000000000008.jpg").write_bytes(b"no picture")
    run = tmp_path / "run"
    assert generate(["coco-likelihood", str(run), "--data", str(folder), "--system", "chance"]) == 0
    (group,) = load_groups([run], CLIP)
    assert group.left_out == {"question: a picture is damaged": 1}
    assert (len(group.scores[0].ids), group.scores[0].gallery_size) == (NUM_STORIES - 1, NUM_STORIES)
    assert len(read_run(run).answered[0]["scores"]) == NUM_STORIES


def test_ratings_are_means_of_what_the_model_says() -> None:
    """Of a caption's own tokens; as published, with the beginning of sequence before them."""
    system = GillSystem.__new__(GillSystem)
    system.generator = generator = tiny_generator("opt", "float64")
    picture, texts = Segment(image=random_pictures(2)[1]), ("a cat", "two dogs sat")
    item = Item("1", (picture,), candidates=texts)
    whole = generator.log_likelihoods([(picture, Segment(text=text)) for text in texts])
    (published,), (mean,), (total,) = (system.rate([item], [0], rating) for rating in (MEAN_WITH_BOS, MEAN, SUM))
    assert published == pytest.approx([float(scores.mean()) for scores in whole])
    assert mean == pytest.approx([float(scores[1:].mean()) for scores in whole])
    assert total == pytest.approx([float(torch.sum(scores[1:])) for scores in whole])
