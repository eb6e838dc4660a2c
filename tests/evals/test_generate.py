"""Answers are kept: interrupted, shared among processes, and made of data with faults."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from evals.generate import main as generate
from evals.harness import visdial, vist
from evals.harness.items import Item
from evals.harness.runs import read_run
from evals.harness.systems import ChanceSystem
from main import main as train
from tests.evals.benchmark_files import (
    DIALOGUES,
    NUM_STORIES,
    STORIES,
    rewrite,
    write_dialogues,
    write_questions,
    write_stories,
)


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    return write_stories(tmp_path / "world")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the questions that were put to the system."""
    ids: list[str] = []
    draw = ChanceSystem.draw

    def listen(self: ChanceSystem, items: Sequence[Item], seeds: Sequence[int]) -> list[Image.Image | None]:
        ids.extend(item.id for item in items)
        return draw(self, items, seeds)

    monkeypatch.setattr(ChanceSystem, "draw", listen)
    return ids


def by_chance(data: Path, out: Path, *words: str, task: str = "vist-generation") -> int:
    return generate([task, str(out), "--data", str(data), "--system", "chance", "--batch-size", "2", *words])


def contents(run: Path) -> dict[str, bytes]:
    """What a finished run holds, its way there left out."""
    files = [path for path in run.rglob("*") if path.is_file() and path.parent.name != "shards"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


# Questions


@pytest.mark.parametrize(
    ("context", "kinds"), [("1cap", "t"), ("5cap", "t"), ("2cap1img", "tpt"), ("5cap4img", "tptptptpt")]
)
def test_a_context_shows_what_its_name_says(stories: Path, context: str, kinds: str) -> None:
    item = vist.read_generation(stories, "corrected", context).items[0]
    frames = next(iter(vist.read_stories(stories, "corrected")[0].values()))
    assert "".join("t" if part.is_text else "p" for part in item.prompt) == kinds
    texts = " ".join(part.text for part in item.prompt if part.text)
    told = {"1cap": 1, "2cap1img": 2}.get(context, 5)
    assert texts == " ".join(frame.caption for frame in frames[-told:])
    pictures = [part.image_path.stem for part in item.prompt if part.image_path]
    assert pictures == [frame.image_id for frame in frames[4 - kinds.count("p") : 4]] == list(item.shown)
    assert item.truth is not None and item.truth.stem == frames[-1].image_id


def test_dialogues_are_read_as_the_papers_write_them(tmp_path: Path) -> None:
    folder = write_dialogues(tmp_path / "world")
    (text,) = visdial.read_generation(folder, "corrected", "5").items[0].prompt
    lines = (text.text or "").split("\n")
    assert [line[:3] for line in lines] == ["Q: ", "A: "] * 5
    assert all(line.endswith("?") for line in lines[::2])
    (other,) = visdial.read_retrieval(folder, "paper", "5").items[0].prompt
    assert (other.text or "") == " ".join(f"{q} {a}." for q, a in zip(lines[::2], lines[1::2], strict=True))


def test_answers_are_ranked_after_the_picture_and_the_rounds_before(tmp_path: Path) -> None:
    folder = write_dialogues(tmp_path / "world")
    items = visdial.read_ranking(folder, "corrected", "10").items
    assert len(items) == 10 * NUM_STORIES
    picture, text = items[2].prompt
    assert picture.image_path == items[2].truth
    lines = (text.text or "").split("\n")
    assert len(lines) == 6 and lines[-1] == "A: "
    next_lines = (items[3].prompt[1].text or "").split("\n")
    assert next_lines[5] == "A: " + items[2].candidates[items[2].right]
    assert sum(bool(item.relevance) for item in items) == NUM_STORIES
    assert all(item.relevance[item.right] == 1 for item in items if item.relevance)


# Interrupted and shared


def test_pictures_that_are_missing_are_told_of(
    stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = next(iter(vist.read_stories(stories, "corrected")[0].values()))
    next((stories / vist.PICTURES).glob(f"{frames[0].image_id}.*")).unlink()
    for num_new in (NUM_STORIES, 0):
        assert by_chance(stories, tmp_path / "run") == 0
        said = capsys.readouterr().out
        assert f"{num_new} of {NUM_STORIES} items answered now, all answered, but 1 left out (1 x a picture is" in said
        assert "ask into another folder" in said


def test_an_interrupted_run_goes_on_where_it_stopped(
    stories: Path, tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert by_chance(stories, tmp_path / "whole") == 0
    listen, calls = ChanceSystem.draw, 0

    def stop(self: ChanceSystem, items: Sequence[Item], seeds: Sequence[int]) -> list[Image.Image | None]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return listen(self, items, seeds)

    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(ChanceSystem, "draw", stop)
        with pytest.raises(KeyboardInterrupt):
            by_chance(stories, tmp_path / "run")
    assert asked == ["0", "1", "2", "3"]
    assert not (tmp_path / "run" / "outputs.jsonl").exists()
    assert by_chance(stories, tmp_path / "run") == 0
    assert asked == ["0", "1", "2", "3", "4", "5"]
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert by_chance(stories, tmp_path / "run") == 0
    assert len(asked) == 6


def test_a_line_that_was_cut_off_is_written_again(stories: Path, tmp_path: Path, asked: list[str]) -> None:
    assert by_chance(stories, tmp_path / "run") == 0
    before = contents(tmp_path / "run")
    (shard,) = (tmp_path / "run" / "shards").glob("*.jsonl")
    shard.write_bytes(shard.read_bytes()[:-40])
    (tmp_path / "run" / "outputs.jsonl").unlink()
    asked.clear()
    assert by_chance(stories, tmp_path / "run") == 0
    assert asked == ["4", "5"]  # its batch
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("task", ["vist-generation", "vist-retrieval"])
def test_shards_end_with_the_bytes_of_one_process(
    stories: Path, tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_chance(stories, tmp_path / "whole", task=task) == 0
    for shard in ("2/3", "0/3"):
        assert by_chance(stories, tmp_path / "run", "--shard", shard, task=task) == 0
        assert "other shards are not finished yet" in capsys.readouterr().out
    assert by_chance(stories, tmp_path / "run", "--shard", "1/3", task=task) == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


def test_another_question_wants_another_folder(
    stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_chance(stories, tmp_path / "run") == 0
    assert by_chance(stories, tmp_path / "run", "--seed", "7") == 2
    assert "seed 42, now 7; choose another folder" in capsys.readouterr().err
    rewrite(stories / STORIES, lambda told: {**told, "annotations": told["annotations"][5:]})
    assert by_chance(stories, tmp_path / "run") == 2
    assert "other questions (another --limit, or data that changed)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--shard", "3/3"], "--shard wants K/N with 0 <= K < N, got 3/3"),
        (["--shard", "1of3"], "--shard wants K/N, such as 0/4"),
        (["--context", "6cap"], "unknown context of vist-generation '6cap'; did you mean '5cap'?"),
        (["--data", "nowhere"], "val.story-in-sequence.json is missing"),
    ],
)
def test_a_wrong_command_says_what_to_do(
    stories: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_chance(stories, tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err


def test_what_a_system_cannot_do_is_refused(stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = ["--system", "clip", "--model", "checkpoints/flatland/clip", "--data", str(stories)]
    assert generate(["vist-generation", str(tmp_path / "run"), *clip]) == 2
    assert "--system clip does not draw; use gill, diffusion or chance" in capsys.readouterr().err
    assert by_chance(stories, tmp_path / "run") == 0, "a folder without answers is not taken"


# Data with faults


@pytest.mark.parametrize("context", ["1cap", "5cap4img"])
def test_a_picture_that_cannot_be_read_is_counted_and_changes_nothing_else(
    stories: Path, tmp_path: Path, context: str
) -> None:
    """One first picture is missing, one is damaged, one story lacks its last picture."""
    assert by_chance(stories, tmp_path / "whole", "--context", context) == 0
    damaged = tmp_path / "damaged"
    stories.parent.rename(damaged)
    pictures = damaged / "sis" / "val_images"
    (pictures / "10000000.png").unlink()
    (pictures / "10000005.png").write_bytes(b"\x89PNG and nothing more")
    (pictures / "10000014.png").unlink()
    assert by_chance(damaged / "sis", tmp_path / "run", "--context", context) == 0
    run, whole = read_run(tmp_path / "run"), read_run(tmp_path / "whole")
    assert [line["id"] for line in run.answered] == ["3", "4", "5"]
    assert run.left_out() == {"question: a picture is missing": 2, "question: a picture is damaged": 1}
    assert run.answered == whole.answered[3:]  # seeds included


def test_a_story_without_its_last_text_is_left_out(stories: Path, tmp_path: Path) -> None:
    rewrite(stories / STORIES, lambda told: {**told, "annotations": told["annotations"][:-1]})
    assert by_chance(stories, tmp_path / "run") == 0
    run = read_run(tmp_path / "run")
    assert len(run.answered) == NUM_STORIES - 1
    assert run.left_out() == {"a story without five texts": 1}


def test_order_and_repetition_change_no_question(stories: Path) -> None:
    """Annotations are shuffled, and some occur twice."""
    before = vist.read_generation(stories, "corrected", "5cap4img")

    def shuffle(told: dict[str, list[object]]) -> dict[str, list[object]]:
        rows = told["annotations"] + told["annotations"][:3]
        random.Random(0).shuffle(rows)
        return {**told, "annotations": rows}

    rewrite(stories / STORIES, shuffle)
    after = vist.read_generation(stories, "corrected", "5cap4img")
    assert {item.id: item for item in after.items} == {item.id: item for item in before.items}
    assert after.notes["places of a story that are told twice (the first counts)"] == 3
    assert after.notes["stories not in the order the worker arranged (put in order)"] > 0
    assert before.notes == {}
    paper = vist.read_generation(stories, "paper", "5cap4img")
    assert {item.id: item.prompt for item in paper.items} != {item.id: item.prompt for item in before.items}


def test_stories_that_share_their_last_picture_keep_their_own_answers(stories: Path, tmp_path: Path) -> None:
    def share(told: dict[str, list[list[dict[str, str]]]]) -> dict[str, list[list[dict[str, str]]]]:
        told["annotations"][9][0]["photo_flickr_id"] = told["annotations"][4][0]["photo_flickr_id"]
        return told

    rewrite(stories / STORIES, share)
    assert by_chance(stories, tmp_path / "run") == 0
    run = read_run(tmp_path / "run")
    first, second = run.answered[:2]
    assert first["truth"] == second["truth"] and first["output"] != second["output"] and first["seed"] != second["seed"]
    assert run.reading["notes"] == {"stories that share their last picture": 2}
    survivor, same = vist.read_generation(stories, "paper", "5cap4img").items[:2]
    assert survivor.prompt == same.prompt
    gallery = [item.id for item in vist.read_retrieval(stories, "corrected", "1cap").items if not item.is_question]
    assert len(gallery) == len(set(gallery)) == 5 * NUM_STORIES - 1


def test_dialogues_that_occur_twice_and_relevance_in_another_order(tmp_path: Path) -> None:
    folder = write_dialogues(tmp_path / "world")
    before = visdial.read_ranking(folder, "corrected", "10")

    def repeat(content: dict[str, dict[str, list[object]]]) -> dict[str, dict[str, list[object]]]:
        content["data"]["dialogs"].append(content["data"]["dialogs"][0])
        return content

    rewrite(folder / DIALOGUES, repeat)
    rewrite(folder / visdial.DENSE, lambda rows: rows[::-1])
    after = visdial.read_ranking(folder, "corrected", "10")
    assert after.items == before.items
    assert after.notes == {"dialogues whose picture had one already (the first counts)": 1}


# With a model


def test_a_trained_model_draws_and_retrieves(stories: Path, tmp_path: Path) -> None:
    """Every road of a GILL, with random tiny parts: pictures in the prompt, a forced image, vectors of both kinds."""
    words = ["--preset=debug", f"--log-base-dir={tmp_path}", "--exp-name=model", "--val-steps-per-epoch=1"]
    assert train([*words, "--val-batch-size=4"]) == 0
    model = ["--data", str(stories), "--model", str(tmp_path / "model"), "--limit", "2", "--steps", "1"]
    assert generate(["vist-generation", str(tmp_path / "drawn"), *model]) == 0
    run = read_run(tmp_path / "drawn")
    assert [line["output"] for line in run.answered] == ["pictures/0.png", "pictures/1.png"]
    with Image.open(tmp_path / "drawn" / "pictures" / "0.png") as drawn:
        assert drawn.size == (16, 16)
    assert json.loads((tmp_path / "drawn" / "run.json").read_text())["weights"]
    dialogues = write_dialogues(tmp_path / "dialogues")
    scores = []
    for protocol in ("corrected", "paper"):
        out = tmp_path / f"ranking-{protocol}"
        words = ["--data", str(dialogues), "--protocol", protocol, *model[2:]]
        assert generate(["visdial-ranking", str(out), *words]) == 0
        scores.append(read_run(out).answered[1]["scores"])
        assert len(scores[-1]) == 100 and max(scores[-1]) < 0
    assert scores[0] != scores[1]
    write_questions(tmp_path / "vqa")
    words = ["--data", str(tmp_path / "vqa"), "--context", "2-shot", *model[2:]]
    assert generate(["vqa", str(tmp_path / "answered"), *words]) == 0
    assert all(isinstance(line["output"], str) for line in read_run(tmp_path / "answered").answered)
    for protocol in ("corrected", "paper"):
        out = tmp_path / protocol
        assert generate(["vist-retrieval", str(out), *model, "--protocol", protocol]) == 0
        assert len(read_run(out).lines) == 2 + 5 * NUM_STORIES


def test_the_baselines_answer_the_same_questions(stories: Path, tmp_path: Path) -> None:
    alone = ["--system", "diffusion", "--model", "tiny", "--steps", "1"]
    assert generate(["vist-generation", str(tmp_path / "drawn"), "--data", str(stories), "--limit", "2", *alone]) == 0
    clip = ["--system", "clip", "--model", "checkpoints/flatland/clip"]
    assert generate(["vist-retrieval", str(tmp_path / "found"), "--data", str(stories), "--limit", "2", *clip]) == 0
    assert len(read_run(tmp_path / "drawn").answered) == len(read_run(tmp_path / "found").answered) == 2
