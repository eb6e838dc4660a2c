"""VQA v2 in miniature, in the official files: questions with their examples, faults, accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evals.generate import main as generate
from evals.harness import vqa
from evals.harness.runs import read_run
from evals.harness.systems import ChanceSystem
from evals.harness.tables import examples, table
from evals.score import load_groups
from gill.errors import DataError, MissingFileError
from tests.evals.benchmark_files import rewrite, write_questions

CLIP = "checkpoints/flatland/clip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "vqa")


def texts(item: Any) -> list[str]:
    return ["picture" if part.text is None else part.text for part in item.prompt]


def test_a_question_is_put_alone_or_after_examples(folder: Path) -> None:
    alone = vqa.read_vqa(folder, "corrected", "0-shot").items
    assert [item.id for item in alone] == ["1000", "2000", "3000", "4000", "5000", "6000"]
    assert texts(alone[1]) == ["picture", "Q: Is it 2?\nA:"]
    four, two = (vqa.read_vqa(folder, "corrected", context).items[1] for context in ("4-shot", "2-shot"))
    assert texts(four)[8:] == texts(two)[4:] == texts(alone[1]) and texts(four)[:4] == texts(two)[:4]
    told = [part.image_path for part in four.prompt if part.image_path is not None]
    assert [path.parent.name for path in told] == ["train2014"] * 4 + ["val2014"] and set(four.needs) == set(told)
    for path, text in zip(told[:-1], texts(four)[1:8:2], strict=True):
        assert text == f"Q: Is it {int(path.stem[-12:])}?\nA: answer {int(path.stem[-12:])}\n"


def test_an_example_without_its_picture_is_not_shown(folder: Path) -> None:
    """A question must not fall out of one context alone."""
    lost = folder / "train2014" / "COCO_train2014_000000000002.jpg"
    lost.unlink()
    found = vqa.read_vqa(folder, "corrected", "4-shot")
    assert len(found.items) == 6 and all(lost not in item.needs for item in found.items)
    assert found.notes == {"questions of train2014 whose picture is missing, which are no examples": 1}
    lost.with_name("COCO_train2014_000000000001.jpg").unlink()
    with pytest.raises(DataError, match="holds 3 questions of train2014"):
        vqa.read_vqa(folder, "corrected", "4-shot")


def test_order_repetition_and_gaps_are_met(folder: Path) -> None:
    before = vqa.read_vqa(folder, "corrected", "0-shot").items
    asked, told = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
    again = {"image_id": 3, "question": "once more?", "question_id": 1000}
    rewrite(folder / asked, lambda all: {"questions": [*all["questions"], again]})
    rewrite(folder / told, lambda all: {"annotations": [*all["annotations"][:0:-1], all["annotations"][3]]})
    after = vqa.read_vqa(folder, "corrected", "0-shot")
    assert after.items == before[1:]
    assert after.left_out == {"a question without answers": 2}
    assert after.notes == {"annotations whose question has some already (the first count)": 1}


def test_files_that_are_missing_or_of_another_form_are_refused(folder: Path) -> None:
    path = folder / "v2_mscoco_train2014_annotations.json"
    rewrite(path, lambda told: {"annotations": told["annotations"][:3]})
    with pytest.raises(DataError, match="holds 3 questions of train2014"):
        vqa.read_vqa(folder, "corrected", "4-shot")
    rewrite(path, lambda told: told["annotations"])
    with pytest.raises(DataError, match="not laid out as VQA v2"):
        vqa.read_vqa(folder, "corrected", "1-shot")
    path.unlink()
    with pytest.raises(MissingFileError, match="give the folder of VQA v2"):
        vqa.read_vqa(folder, "corrected", "1-shot")


def test_answers_are_scored_in_all_and_by_type(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Question 1 is answered as nine did, 2 and 5 as the one, 3 wrongly, 4 with an article; 6 lacks its picture."""
    said = {"1000": "Answer 1.", "2000": "other", "3000": "answer", "4000": "the answer 4", "5000": "the other"}
    monkeypatch.setattr(
        ChanceSystem, "describe", lambda self, items, seeds, num_tokens: [said[item.id] for item in items]
    )
    (folder / "val2014" / "COCO_val2014_000000000006.jpg").unlink()
    run = tmp_path / "run"
    assert generate(["vqa", str(run), "--data", str(folder), "--system", "chance"]) == 0
    assert read_run(run).left_out() == {"question: a picture is missing": 1}
    (group,) = load_groups([run], CLIP)
    means = {name: group.estimate(name).mean for name in group.measures}
    # The one's answer: without that one nobody agrees, else one third: .3.
    assert means["accuracy"] == pytest.approx((1 + 0.3 + 0 + 1 + 0.3) / 5)
    assert means["accuracy.number"] == pytest.approx(1)  # 1 and 4
    assert means["accuracy.other"] == pytest.approx(0.3)  # 2 and 5
    assert means["accuracy.yes/no"] == 0  # 3
    assert group.estimate("accuracy.number").num_items == 2
    assert "`accuracy.yes/no`" in table([group], "vqa")[0]
    assert examples([group], "vqa", 1)[0]["truth"] == "answer 1 / the other"
