"""VisDial 1.0 (Das et al. 2017, arXiv:1611.08669) as questions: which picture is it about, which answer is right?

A folder holds `visdial_1.0_val.json`, for answer ranking `visdial_1.0_val_dense_annotations.json`, and the pictures as
`VisualDialog_val2018/VisualDialog_val2018_<12 digits>.jpg`. Neither the caption nor the picture is shown, as in the
papers, except where answers are ranked: there the picture opens the context.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.harness.items import PICTURE, Item, Reading, read_json
from gill.errors import DataError
from gill.types import Segment

CONTEXTS = ("1", "5", "10")
DIALOGUES, DENSE, PICTURES = "visdial_1.0_val.json", "visdial_1.0_val_dense_annotations.json", "VisualDialog_val2018"
_WANTED = "give VisDial's folder (--data)"
Relevance = dict[tuple[int, int], tuple[float, ...]]  # of each option, by (image id, round from 0)


@dataclass(frozen=True)
class Round:
    """A question (with its mark), its answer, and the answers to choose from."""

    question: str
    answer: str
    options: tuple[str, ...]
    right: int


def read_generation(folder: Path, protocol: str, context: str) -> Reading:
    """The picture of each dialogue is to be drawn after so many rounds."""
    dialogues, notes = read_dialogues(folder)
    items = []
    for image_id, rounds in dialogues.items():
        path = picture_path(folder, image_id)
        prompt = (Segment(text=_lines(rounds[: int(context)])),)
        items.append(Item(f"{image_id:012d}", prompt, path, (path,)))
    return Reading(tuple(items), folder, Counter(), notes)


def read_retrieval(folder: Path, protocol: str, context: str) -> Reading:
    """Dialogues and pictures are to be matched; "paper" writes a dialogue in one line, as FROMAGe's script does."""
    dialogues, notes = read_dialogues(folder)
    written = _one_line if protocol == "paper" else _lines
    questions, gallery = [], []
    for image_id, rounds in dialogues.items():
        path, name = picture_path(folder, image_id), f"{image_id:012d}"
        prompt = (Segment(text=written(rounds[: int(context)])),)
        questions.append(Item(name, prompt, path, (path,), target=name))
        gallery.append(Item(f"picture-{name}", (Segment(image_path=path),), path, (path,), PICTURE, name))
    return Reading((*questions, *gallery), folder, Counter(), notes)


def read_ranking(folder: Path, protocol: str, context: str) -> Reading:
    """The hundred answers of each round are to be ranked after the picture and the rounds before it."""
    dialogues, notes = read_dialogues(folder)
    relevance = read_relevance(folder, notes)
    if protocol == "paper":
        relevance = _one_round_late(relevance, dialogues)
    items = []
    for image_id, rounds in dialogues.items():
        path = picture_path(folder, image_id)
        for number, asked in enumerate(rounds):
            if not 0 <= asked.right < len(asked.options):
                raise DataError(
                    f"{folder / DIALOGUES}: round {number + 1} about image {image_id} has no answers to choose from or "
                    "does not say which is right; take VisDial's validation file"
                )
            before = "".join(f"{_lines([each])}\n" for each in rounds[:number])
            prompt = (Segment(image_path=path), Segment(text=f"{before}Q: {asked.question}\nA: "))
            values = relevance.get((image_id, number), ())
            if values and len(values) != len(asked.options):
                raise DataError(f"{folder / DENSE}: image {image_id} has {len(values)} values for {len(asked.options)}")
            items.append(
                Item(
                    f"{image_id:012d}-{number + 1}",
                    prompt,
                    path,
                    (path,),
                    candidates=asked.options,
                    right=asked.right,
                    relevance=values,
                )
            )
    return Reading(tuple(items), folder, Counter(), +notes)


def read_dialogues(folder: Path) -> tuple[dict[int, tuple[Round, ...]], Counter[str]]:
    """Rounds by image id, and what was met; the first of two dialogues about one picture counts.

    Raises:
        MissingFileError: no annotations there. DataError: annotations of another form.
    """
    path = folder / DIALOGUES
    content = read_json(path, _WANTED)
    dialogues: dict[int, tuple[Round, ...]] = {}
    notes = Counter[str]()
    try:
        questions, answers = content["data"]["questions"], content["data"]["answers"]
        for row in content["data"]["dialogs"]:
            image_id = int(row["image_id"])
            notes["dialogues whose picture had one already (the first counts)"] += image_id in dialogues
            dialogues.setdefault(image_id, tuple(_round(each, questions, answers) for each in row["dialog"]))
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not laid out as VisDial 1.0: {error!r}") from error
    return dialogues, +notes


def read_relevance(folder: Path, notes: Counter[str]) -> Relevance:
    """Relevance of each option by (image id, round from 0), whatever the order of the file.

    Raises:
        MissingFileError: no annotations there. DataError: annotations of another form.
    """
    path = folder / DENSE
    content = read_json(path, _WANTED)
    found: Relevance = {}
    try:
        for row in content:
            place = int(row["image_id"]), int(row["round_id"]) - 1
            notes["dense annotations that occur twice (the first counts)"] += place in found
            found.setdefault(place, tuple(float(value) for value in row["gt_relevance"]))
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not laid out as VisDial's dense annotations: {error!r}") from error
    return found


def picture_path(folder: Path, image_id: int) -> Path:
    """Where a dialogue's picture lies."""
    return folder / PICTURES / f"{PICTURES}_{image_id:012d}.jpg"


def _round(row: dict[str, Any], questions: Sequence[str], answers: Sequence[str]) -> Round:
    options = tuple(answers[number] for number in row.get("answer_options", ()))
    return Round(f"{questions[row['question']]}?", answers[row["answer"]], options, int(row.get("gt_index", -1)))


def _one_round_late(relevance: Relevance, dialogues: Mapping[int, Sequence[Round]]) -> Relevance:
    """As FROMAGe's script pairs it with scores: `round_id`, which counts from 1, is an index from 0 of all rounds."""
    rounds = [(image_id, number) for image_id, asked in dialogues.items() for number in range(len(asked))]
    later = dict(itertools.pairwise(rounds))
    return {later[place]: values for place, values in relevance.items() if place in later}


def _lines(rounds: Sequence[Round]) -> str:
    return "\n".join(f"Q: {each.question}\nA: {each.answer}" for each in rounds)


def _one_line(rounds: Sequence[Round]) -> str:
    return " ".join(f"Q: {each.question} A: {each.answer}." for each in rounds)
