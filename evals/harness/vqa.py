"""VQA v2 (Goyal et al. 2017, arXiv:1612.00837) as questions, alone or after examples from the training part.

A folder holds `v2_OpenEnded_mscoco_val2014_questions.json`, `v2_mscoco_val2014_annotations.json` and the pictures as
`val2014/COCO_val2014_<12 digits>.jpg`; examples want the same of `train2014`. A prompt is, for examples and then
for the question, a picture and "Q: ...\\nA:"; an example ends in the answer that most people gave.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.harness.items import Item, Reading, read_json
from gill.errors import DataError
from gill.types import Segment

CONTEXTS = ("4-shot", "2-shot", "1-shot", "0-shot")
_WANTED = "give the folder of VQA v2 (--data)"


@dataclass(frozen=True)
class Question:
    """A question about a picture, and what people answered; `common` is the most common answer."""

    id: int
    path: Path
    text: str
    answers: tuple[str, ...]
    common: str
    answer_type: str

    def segments(self, answer: str = "") -> tuple[Segment, ...]:
        """The picture and the question, with an answer where it is an example."""
        return Segment(image_path=self.path), Segment(text=f"Q: {self.text}\nA:{answer}")


def read_vqa(folder: Path, protocol: str, context: str) -> Reading:
    """Each question of the validation part is to be answered."""
    num_shots = int(context.partition("-")[0])
    left_out, notes = Counter[str](), Counter[str]()
    questions = read_questions(folder, "val2014", left_out, notes)
    examples = _shown(read_questions(folder, "train2014", Counter(), Counter()), notes) if num_shots else []
    if len(examples) < num_shots:
        raise DataError(f"{folder} holds {len(examples)} questions of train2014 with answers, {context} wants more")
    return Reading(tuple(_item(each, examples, num_shots) for each in questions), folder, left_out, notes)


def _shown(examples: list[Question], notes: Counter[str]) -> list[Question]:
    """Those whose picture is there: a question must not be left out of one context for what another does not show."""
    is_there = {path: path.is_file() for path in {each.path for each in examples}}
    found = [each for each in examples if is_there[each.path]]
    if len(found) < len(examples):
        notes["questions of train2014 whose picture is missing, which are no examples"] += len(examples) - len(found)
    return found


def read_questions(folder: Path, part: str, left_out: Counter[str], notes: Counter[str]) -> list[Question]:
    """Questions by id, whatever the order of the files; the first of two of one id counts.

    Args:
        left_out, notes: what is left out and what was met is counted there.

    Raises:
        MissingFileError: no such files. DataError: files of another form.
    """
    asked_path, told_path = (
        folder / f"v2_{name}.json" for name in (f"OpenEnded_mscoco_{part}_questions", f"mscoco_{part}_annotations")
    )
    asked, told = read_json(asked_path, _WANTED), read_json(told_path, _WANTED)
    found: dict[int, Question] = {}
    try:
        annotations: dict[int, dict[str, Any]] = {}
        for row in told["annotations"]:
            question_id = int(row["question_id"])
            if question_id in annotations:
                notes["annotations whose question has some already (the first count)"] += 1
            annotations.setdefault(question_id, row)
        for row in asked["questions"]:
            question_id = int(row["question_id"])
            if question_id in found:
                notes["questions whose id occurs twice (the first counts)"] += 1
            elif question_id in annotations:
                found[question_id] = _question(folder, part, row, annotations[question_id])
            else:
                left_out["a question without answers"] += 1
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{asked_path} or {told_path.name} is not laid out as VQA v2: {error!r}") from error
    return [found[each] for each in sorted(found)]


def _question(folder: Path, part: str, row: dict[str, Any], annotation: dict[str, Any]) -> Question:
    return Question(
        int(row["question_id"]),
        folder / part / f"COCO_{part}_{int(row['image_id']):012d}.jpg",
        str(row["question"]),
        tuple(str(each["answer"]) for each in annotation["answers"]),
        str(annotation["multiple_choice_answer"]),
        str(annotation["answer_type"]),
    )


def _item(question: Question, examples: list[Question], num_shots: int) -> Item:
    """More examples begin with the fewer ones; who is shown depends on the question's id alone."""
    lot = random.Random(question.id)
    shown = [examples[lot.randrange(len(examples))] for _ in range(num_shots)]
    prompt = [part for each in shown for part in each.segments(f" {each.common}\n")]
    return Item(
        str(question.id),
        (*prompt, *question.segments()),
        question.path,
        (question.path, *(each.path for each in shown)),
        references=question.answers,
        answer_type=question.answer_type,
    )
