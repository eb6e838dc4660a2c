"""Scores of answers whose worth is known."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from evals.harness import vist
from evals.harness.items import Item
from evals.harness.measures import caption_marks
from evals.harness.published import published_rows
from evals.harness.runs import read_run
from evals.harness.summary import told
from evals.harness.systems import ChanceSystem
from evals.score import load_groups
from evals.score import main as score
from gill.backbones import Clip
from gill.errors import ConfigError, DataError
from gill.flatland import read_caption
from tests.evals.benchmark_files import (
    NUM_STORIES,
    STORIES,
    by_chance,
    rewrite,
    write_captions,
    write_dialogues,
    write_stories,
)

CLIP = "checkpoints/flatland/clip"


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    return write_stories(tmp_path / "world")


def draw_the_truth(run: Path, count: int) -> None:
    """Replace the first drawn pictures by the true ones."""
    found = read_run(run)
    for line in found.answered[:count]:
        shutil.copy(Path(found.manifest["data"]) / line["truth"], run / line["output"])


def test_perceptual_distance_is_none_from_the_truth(stories: Path, tmp_path: Path) -> None:
    run = by_chance("vist-generation", stories, tmp_path / "run")
    draw_the_truth(run, 3)
    (without,), (group,) = load_groups([run], CLIP), load_groups([run], CLIP, CLIP)
    assert "lpips" not in without.measures
    distances = group.scores[0].values["lpips"]
    assert distances[:3] == pytest.approx([0, 0, 0], abs=1e-6) and max(distances) > 0.01
    assert dict(published_rows("vist-generation", "5cap4img", "lpips")) == {"GILL (GILL, table 1)": 0.693}


def test_true_pictures_score_one(stories: Path, tmp_path: Path) -> None:
    run = by_chance("vist-generation", stories, tmp_path / "run")
    draw_the_truth(run, NUM_STORIES)
    (group,) = load_groups([run], CLIP)
    similarity = group.estimate("clip_similarity")
    assert (similarity.mean, similarity.low, similarity.high) == pytest.approx((1, 1, 1), abs=1e-5)
    assert similarity.num_items == NUM_STORIES
    for name in ("judge.whole", "judge.shape_colour_cell"):
        estimate = group.estimate(name)
        lowest = NUM_STORIES / (NUM_STORIES + 1.96**2)  # Wilson's, of all of so few
        assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((1, lowest, 1), abs=1e-4)
        assert estimate.num_items == NUM_STORIES


def test_systems_are_compared_item_by_item(stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of two systems is right about half of what both were asked; the pairs tell it without an interval."""
    runs = [by_chance("vist-generation", stories, tmp_path / name, "--label", name) for name in ("one", "other")]
    draw_the_truth(runs[0], NUM_STORIES)
    draw_the_truth(runs[1], NUM_STORIES)
    out = tmp_path / "scores.json"
    words = [*map(str, runs), "--clip", CLIP, "--against", "other", "--out", str(out)]
    assert score(words) == 0
    assert "minus other: 0.000 [0.000, 0.000]" in capsys.readouterr().out
    one, other = json.loads(out.read_text())
    equal = {"mean": 0, "low": 0, "high": 0, "n": NUM_STORIES, "seeds": 1, "seed_deviation": None}
    assert one["differences"]["clip_similarity"] == equal
    bound = 1.95996**2 / (NUM_STORIES + 1.95996**2)  # Wilson's: six equal pairs do not say that there is no other
    assert one["differences"]["judge.whole"] == pytest.approx({**equal, "low": -bound, "high": bound}, abs=1e-4)
    assert "differences" not in other


def test_seeds_of_one_label_are_one_system(stories: Path, tmp_path: Path) -> None:
    runs = [by_chance("vist-generation", stories, tmp_path / str(seed), "--seed", str(seed)) for seed in range(3)]
    draw_the_truth(runs[0], NUM_STORIES)
    (group,) = load_groups(runs, CLIP)
    rows = [score.values["judge.place"] for score in group.scores]
    assert rows[0] == [1] * NUM_STORIES
    estimate = group.estimate("judge.place")
    assert (estimate.num_seeds, estimate.num_items) == (3, NUM_STORIES)
    assert estimate.mean == pytest.approx(sum(map(sum, rows)) / (3 * NUM_STORIES))
    means = [sum(row) / NUM_STORIES for row in rows]
    assert told(estimate).endswith(f"] ± {statistics.stdev(means):.3f}")


def test_one_folder_is_not_two_seeds(stories: Path, tmp_path: Path) -> None:
    run = by_chance("vist-generation", stories, tmp_path / "run")
    with pytest.raises(ConfigError, match="would count as several seeds"):
        load_groups([run, run / "pictures" / ".."], CLIP)
    again = by_chance("vist-generation", stories, tmp_path / "again")
    with pytest.raises(ConfigError, match="one system with the same noise, which is one seed"):
        load_groups([run, again], CLIP)


def test_models_under_one_label_are_named(stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [by_chance("vist-generation", stories, tmp_path / name, "--model", name) for name in ("one", "other")]
    assert score([*map(str, runs), "--clip", CLIP]) == 0
    assert "mean of one, other (generate.py --label tells systems apart)" in capsys.readouterr().out


def test_other_questions_under_one_label_are_refused(stories: Path, tmp_path: Path) -> None:
    first = by_chance("vist-generation", stories, tmp_path / "first")
    rewrite(stories / STORIES, lambda told: {**told, "annotations": told["annotations"][5:]})
    second = by_chance("vist-generation", stories, tmp_path / "second")
    with pytest.raises(DataError, match="asked other questions"):
        load_groups([first, second], CLIP)


def test_a_picture_that_was_lost_after_drawing_is_counted(stories: Path, tmp_path: Path) -> None:
    run = by_chance("vist-generation", stories, tmp_path / "run")
    (run / "pictures" / "0.png").write_bytes(b"no picture")
    (group,) = load_groups([run], CLIP)
    assert group.estimate("clip_similarity").num_items == NUM_STORIES - 1
    assert group.left_out == {"question: its drawn or true picture cannot be read any more": 1}
    shutil.copy(run / "pictures" / "1.png", run / "pictures" / "0.png")
    (again,) = load_groups([run], CLIP)
    assert again.estimate("clip_similarity").num_items == NUM_STORIES, "what came back is scored"


def test_scores_are_kept_until_the_answers_change(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = by_chance("vist-generation", stories, tmp_path / "run")
    (before,) = load_groups([run], CLIP)
    loaded: list[str] = []
    monkeypatch.setattr("evals.score.Clip", lambda name, device: loaded.append(name) or Clip(name, device))
    (again,) = load_groups([run], CLIP)
    assert again.scores == before.scores and loaded == []
    (run / "outputs.jsonl").write_text("".join((run / "outputs.jsonl").read_text().splitlines(True)[1:]))
    (other,) = load_groups([run], CLIP)
    assert len(other.scores[0].ids) == NUM_STORIES - 1 and loaded == [CLIP]


# Retrieval


def give_rows(
    monkeypatch: pytest.MonkeyPatch, row_of_question: dict[str, Tensor], row_of_picture: dict[str, Tensor]
) -> None:
    def embed(self: ChanceSystem, items: Sequence[Item], seeds: Sequence[int]) -> Tensor:
        return torch.stack([(row_of_question if item.is_question else row_of_picture)[item.target] for item in items])

    monkeypatch.setattr(ChanceSystem, "embed", embed)


def test_pictures_that_a_context_shows_are_no_candidates(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question points at its fourth picture, and a little at its fifth."""
    eye = torch.eye(5 * NUM_STORIES)
    pictures = {str(10_000_000 + number): eye[number] for number in range(5 * NUM_STORIES)}
    questions = {str(10_000_004 + 5 * n): eye[5 * n + 3] + 0.5 * eye[5 * n + 4] for n in range(NUM_STORIES)}
    give_rows(monkeypatch, questions, pictures)
    shown = by_chance("vist-retrieval", stories, tmp_path / "shown")
    hidden = by_chance("vist-retrieval", stories, tmp_path / "hidden", "--context", "5cap")
    for run, first in ((shown, 1.0), (hidden, 0.0)):
        (group,) = load_groups([run], CLIP)
        assert group.scores[0].gallery_size == 5 * NUM_STORIES
        assert group.estimate("r@1").mean == first and group.estimate("r@5").mean == 1


def test_a_part_of_the_questions_at_a_time_ranks_alike(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = by_chance("vist-retrieval", stories, tmp_path / "run")
    (whole,) = load_groups([run], CLIP)
    (run / "scores.json").unlink()
    monkeypatch.setattr("evals.harness.measures._QUESTIONS_AT_ONCE", 4)
    (parts,) = load_groups([run], CLIP)
    assert parts.scores == whole.scores


def test_stories_of_one_album_are_drawn_together(stories: Path, tmp_path: Path) -> None:
    """They are told of the same pictures; nothing else that is asked changes."""
    before = vist.read_retrieval(stories, "corrected", "5cap4img")

    def one_album(told: dict[str, list[list[dict[str, str]]]]) -> dict[str, list[list[dict[str, str]]]]:
        for (row,) in told["annotations"][:10]:
            row["album_id"] = "7"
        return told

    rewrite(stories / STORIES, one_album)
    assert vist.read_retrieval(stories, "corrected", "5cap4img").digest() == before.digest()
    (group,) = load_groups([by_chance("vist-retrieval", stories, tmp_path / "run")], CLIP)
    assert list(group.scores[0].subjects.values()) == ["7", "7", "2", "3", "4", "5"]


def test_both_directions_and_which_one_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All dialogues point at the first picture most: one finds its picture, yet every picture finds its dialogue."""
    folder = write_dialogues(tmp_path / "world")
    names = [f"{100_000 + number:012d}" for number in range(NUM_STORIES)]
    eye = torch.eye(NUM_STORIES)
    give_rows(
        monkeypatch, {n: 0.5 * eye[i] + eye[0] for i, n in enumerate(names)}, {n: eye[i] for i, n in enumerate(names)}
    )
    (corrected,) = load_groups([by_chance("visdial-retrieval", folder, tmp_path / "corrected")], CLIP)
    (paper,) = load_groups([by_chance("visdial-retrieval", folder, tmp_path / "paper", "--protocol", "paper")], CLIP)
    assert corrected.estimate("r@1").mean == pytest.approx(1 / NUM_STORIES)
    assert corrected.estimate("i2t_r@1").mean == paper.estimate("r@1").mean == 1
    assert "i2t_r@1" not in paper.measures
    few = by_chance("visdial-retrieval", folder, tmp_path / "few", "--protocol", "paper", "--limit", "2")
    with pytest.raises(DataError, match="without --limit"):
        load_groups([few], CLIP)


def test_what_one_system_lacks_is_not_compared(tmp_path: Path) -> None:
    """Of two dialogues not every picture is asked for, so none ranks the dialogues."""
    folder = write_dialogues(tmp_path / "world")
    whole = by_chance("visdial-retrieval", folder, tmp_path / "whole", "--label", "whole")
    few = by_chance("visdial-retrieval", folder, tmp_path / "few", "--label", "few", "--limit", "2")
    out = tmp_path / "scores.json"
    assert score([str(whole), str(few), "--clip", CLIP, "--against", "few", "--out", str(out)]) == 0
    first, _ = json.loads(out.read_text())
    assert "i2t_r@1" in first["measures"] and "r@1" in first["differences"]
    assert "i2t_r@1" not in first["differences"]


def test_what_was_left_out_is_counted_once_for_all_seeds(stories: Path, tmp_path: Path) -> None:
    next((stories / "val_images").iterdir()).unlink()
    runs = [
        by_chance("vist-generation", stories, tmp_path / seed, "--label", "chance", "--seed", seed) for seed in "012"
    ]
    (one,), (three,) = load_groups(runs[:1], CLIP), load_groups(runs, CLIP)
    assert three.left_out == one.left_out and one.left_out.total() > 0


# Answers


def test_ranked_answers_score_by_the_place_of_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right answer is always third, and what is relevant beside it comes last."""

    def rate(self: ChanceSystem, items: Sequence[Item], seeds: Sequence[int], rating: str) -> list[list[float]]:
        rows = []
        for item in items:
            order = sorted(range(len(item.candidates)), key=lambda n: (item.relevance or [0] * 100)[n])
            order.remove(item.right)
            order.insert(2, item.right)
            rows.append([-float(order.index(number)) for number in range(len(order))])
        return rows

    monkeypatch.setattr(ChanceSystem, "rate", rate)
    folder = write_dialogues(tmp_path / "world")
    (group,) = load_groups([by_chance("visdial-ranking", folder, tmp_path / "run")], CLIP)
    means = {name: group.estimate(name).mean for name in group.measures}
    assert (means["r@1"], means["r@5"], means["mrr"]) == (0, 1, pytest.approx(1 / 3))
    assert group.estimate("mrr").num_items == 10 * NUM_STORIES
    assert group.estimate("ndcg").num_items == NUM_STORIES  # one round of each dialogue has relevance
    assert group.scores[0].gallery_size == 100


# Captions


@pytest.mark.parametrize(
    ("said", "marks"),
    [
        ("a big red star at the top left of the sea.", (1, 1, 1, 1, 1)),
        ("a big blue star at the top left of the sea.", (1, 1, 1, 0, 0)),
        ("a big red star at the top right of the sea.", (1, 1, 0, 0, 0)),
        ("a big red star at the top left and a small blue ring at the bottom right of the sea.", (1, 1, 0.5, 0.5, 0)),
        ("something else", (0, 0, 0, 0, 0)),
    ],
)
def test_a_caption_is_marked_by_what_it_tells(said: str, marks: tuple[float, ...]) -> None:
    found = caption_marks(said, read_caption("a big red star at the top left of the sea."))
    assert tuple(found[name] for name in ("readable", "place", "shape", "colour", "all")) == marks


def test_captions_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = write_captions(tmp_path / "world")
    rows = (world / "dataset" / "cc3m_val.tsv").read_text().splitlines()[1:]
    captions = {str(number): row.split("\t")[0] for number, row in enumerate(rows, 2)}
    monkeypatch.setattr(
        ChanceSystem, "describe", lambda self, items, seeds, num_tokens: [captions[item.id] for item in items]
    )
    (world / "data" / "cc3m" / "validation" / "val_0000000.png").unlink()
    (group,) = load_groups([by_chance("captioning", world, tmp_path / "run")], CLIP)
    assert group.estimate("judge.all").mean == group.estimate("rouge_l").mean == 1
    assert group.estimate("bleu4").mean == pytest.approx(1) and group.estimate("bleu4").low == pytest.approx(1)
    assert group.estimate("judge.all").num_items == NUM_STORIES - 1
    assert group.left_out == {"a picture is missing": 1}


def say(run: Path, texts: dict[str, str]) -> None:
    """Replace what a run says."""
    lines = [json.loads(line) for line in (run / "outputs.jsonl").read_text().splitlines()]
    lines = [{**line, "output": texts[line["id"]]} for line in lines]
    (run / "outputs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_bleu_is_of_all_captions_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One caption is right, one lacks a word: counts add up, scores do not."""
    world = tmp_path / "world"
    (world / "dataset").mkdir(parents=True)
    pictures = world / "data" / "cc3m" / "validation"
    pictures.mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (8, 8)).save(pictures / f"{name}.png")
    table = "caption\timage\nthe cat sat on the mat\ta\na red ball in the park\tb\n"
    (world / "dataset" / "cc3m_val.tsv").write_text(table)
    monkeypatch.setattr(ChanceSystem, "describe", lambda self, items, seeds, num_tokens: [""] * len(items))
    run, other = (by_chance("captioning", world, tmp_path / name, "--label", name) for name in ("one", "other"))
    say(run, {"2": "the cat sat on the mat", "3": "a ball in the park"})
    say(other, {"2": "the cat sat on the mat", "3": "a red ball in the park"})
    one, two = load_groups([run, other], CLIP)
    # 11 of 11 words, 8 of 9 pairs ("a ball" is none), and 11 words where 12 are wanted.
    brevity = math.exp(1 - 12 / 11)
    assert one.estimate("bleu1").mean == pytest.approx(brevity)
    assert one.estimate("bleu2").mean == pytest.approx(brevity * (8 / 9) ** 0.5)
    assert one.difference(two, "bleu1").mean == pytest.approx(brevity - 1)
    assert one.difference(two, "bleu1").num_items == 2
    (again, _) = load_groups([run, other], CLIP)  # read back from the folder
    assert told(again.estimate("bleu2")) == told(one.estimate("bleu2"))
