"""Scores of each answer of a run, by measure.

Shape legend: Q = questions, G = pictures of the gallery, E = width of the retrieval space, N = candidates.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from evals.harness.answers import read_rows
from evals.harness.features import Features
from evals.harness.items import SQUASHED
from evals.harness.runs import LEFT_OUT, Finished, Line
from evals.harness.tasks import ANSWERING, CAPTIONING, DRAWING, RANKING, RETRIEVAL, find_task
from gill.backbones import Clip
from gill.data import open_image
from gill.errors import DataError
from gill.flatland import Scene, compare, read_caption, read_picture
from gill.metrics import (
    bleu_counts,
    cider,
    cosine_similarities,
    ndcg,
    ranks_of_hits,
    ranks_of_owners,
    rouge_l,
    vqa_accuracy,
)

RETRIEVAL_RANKS, ANSWER_RANKS = (1, 5, 10), (1, 5, 10, 20)
NO_SHARES = frozenset({"clip_similarity", "clip_text_similarity", "lpips", "cider"})  # of the values of an answer
MARKS = ("place", "cells", "shape", "colour", "shape_colour_cell", "whole")
_PICTURES_AT_ONCE, _QUESTIONS_AT_ONCE = 32, 1024
Values = dict[str, list[float]]
Pictures = Sequence[Image.Image]
Compare = Callable[[Pictures, Pictures], Tensor]


@dataclass(frozen=True)
class Scores:
    """What a run scores.

    Attributes:
        ids: of the answers that could be scored.
        values: by measure, one value an id; nan where a measure does not apply to the question.
        rows: what each answer brings to measures of the whole set (`sets.py`), float[N, K] by name.
        gallery_size: pictures or texts that each answer was ranked among; 0 where nothing was ranked.
        left_out: by reason, what has no score.
        subjects: by id, the album or picture that the question is about; questions about one are not independent.
    """

    ids: tuple[str, ...]
    values: Values
    gallery_size: int
    left_out: Counter[str]
    rows: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    subjects: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """How to score.

    Attributes:
        clip: of CLIP similarity; called when the first picture is scored.
        lpips, features: perceptual distances of pictures, and what FID and KID compare, where they are wanted; called
            likewise.
        has_judge: pictures and captions are Flatland's, whose contents can be read exactly.
    """

    clip: Callable[[], Clip]
    has_judge: bool
    lpips: Callable[[], Compare] | None = None
    features: Callable[[], Features] | None = None

    def score(self, run: Finished) -> Scores:
        """All measures that fit a run's task.

        Raises:
            DataError: nothing was answered, or an answer's file is damaged.
        """
        answer = find_task(run.manifest["task"]).answer
        if not run.answered:
            raise DataError(f"{run.folder} has no answer to score: {dict(run.left_out())}")
        kinds = {
            DRAWING: self._drawn,
            RETRIEVAL: _retrieved,
            RANKING: _ranked,
            CAPTIONING: self._captioned,
            ANSWERING: _answered,
        }
        subjects = {line["id"]: str(line.get("subject", line.get("truth", line["id"]))) for line in run.answered}
        return replace(kinds[answer](run), subjects=subjects)

    def _drawn(self, run: Finished) -> Scores:
        lines, left_out = run.answered, run.left_out()
        ids: list[str] = []
        values: Values = defaultdict(list)
        features: list[Tensor] = []
        for start in tqdm(range(0, len(lines), _PICTURES_AT_ONCE), desc="scores", unit="batch"):
            seen = list(_opened(run, lines[start : start + _PICTURES_AT_ONCE], left_out))
            if not seen:
                continue
            ids += [each.line["id"] for each in seen]
            for name, found in self._compare(seen).items():
                values[name] += found
            if self.features is not None:
                sides = [each.drawn for each in seen], [each.true for each in seen]
                features.append(torch.cat([self.features()(side) for side in sides], dim=1))
        if not ids:
            raise DataError(
                f"{run.folder}: of no answer both the drawn picture and the true one can be read; true ones are looked "
                f"for in {Path(run.manifest['data']).absolute()}: score where the run was generated, or remove its "
                "folder and generate again"
            )
        return Scores(tuple(ids), dict(values), 0, left_out, {"features": torch.cat(features)} if features else {})

    def _compare(self, seen: Sequence[_Seen]) -> Values:
        """By measure, a value for each drawn picture."""
        drawn, true = [each.drawn for each in seen], [each.true for each in seen]
        embedded = self.clip().embed_pictures(drawn)
        values = {"clip_similarity": cosine_similarities(embedded, self.clip().embed_pictures(true)).tolist()}
        if "references" in seen[0].line:
            texts = self.clip().embed_texts([each.line["references"][0] for each in seen])
            values["clip_text_similarity"] = cosine_similarities(embedded, texts).tolist()
        if self.lpips is not None:
            values["lpips"] = self.lpips()(drawn, true).tolist()
        if self.has_judge:
            marks = [compare(read_picture(each.drawn), read_picture(each.true)) for each in seen]
            values |= {f"judge.{name}": [getattr(mark, name) for mark in marks] for name in MARKS}
        return values

    def _captioned(self, run: Finished) -> Scores:
        lines = run.answered
        said, wanted = [line["output"] for line in lines], [line["references"] for line in lines]
        values: Values = {"rouge_l": rouge_l(said, wanted).tolist(), "cider": cider(said, wanted).tolist()}
        if self.has_judge:
            marks = [caption_marks(text, read_caption(true)) for text, (true, *_) in zip(said, wanted, strict=True)]
            values |= {f"judge.{name}": [mark[name] for mark in marks] for name in marks[0]}
        return Scores(
            tuple(line["id"] for line in lines), values, 0, run.left_out(), {"bleu": bleu_counts(said, wanted)}
        )


@dataclass(frozen=True)
class _Seen:
    """A drawn picture beside the true one."""

    line: Line
    drawn: Image.Image
    true: Image.Image


def _opened(run: Finished, lines: Sequence[Line], left_out: Counter[str]) -> Iterator[_Seen]:
    for line in lines:
        try:
            yield _Seen(line, open_image(run.folder / line["output"], "score"), true_picture(run, line))
        except DataError:
            left_out["question: its drawn or true picture cannot be read any more"] += 1


def true_picture(run: Finished, line: Line) -> Image.Image:
    """The picture that was asked for, squashed where the protocol has it so.

    Raises:
        DataError: it cannot be read.
    """
    image = open_image(Path(run.manifest["data"]) / line["truth"], "score")
    return image.resize(SQUASHED) if is_squashed(run) else image


def is_squashed(run: Finished) -> bool:
    """Whether scores compare with the true pictures as the published protocol squashes them."""
    return run.manifest["protocol"] == "paper" and find_task(run.manifest["task"]).squashes_in_paper


def caption_marks(text: str, true: Scene) -> dict[str, float]:
    """What a caption of Flatland tells rightly, each in 0..1; a thing too many is a wrong one, no caption all wrong."""
    try:
        told = read_caption(text)
    except DataError:
        return dict.fromkeys(("readable", "place", "shape", "colour", "all"), 0.0)
    pairs = [(thing, told.thing_at(thing.cell)) for thing in true.things]
    num_things = max(len(true.things), len(told.things))
    marks = {"readable": 1.0, "place": float(told.place == true.place)}
    for name in ("shape", "colour"):
        right = [other is not None and getattr(thing, name) == getattr(other, name) for thing, other in pairs]
        marks[name] = sum(right) / num_things
    return {**marks, "all": float(marks["place"] == marks["shape"] == marks["colour"] == 1)}


def nearest_pictures(run: Finished, lines: Sequence[Line]) -> list[str]:
    """For each of these questions the file, relative to the data, of the picture that was found first."""
    gallery = _gallery(run)
    scores_QG = _scores(run, lines, gallery, _rows(run, gallery))
    return [gallery[place]["truth"] for place in scores_QG.argmax(1).tolist()]


def _retrieved(run: Finished) -> Scores:
    """Ranks of the right pictures and, where nothing of the gallery is shown, of each picture's own questions."""
    lines, gallery = run.answered, _gallery(run)
    places = {line["target"]: place for place, line in enumerate(gallery)}
    asked_Q = torch.tensor([places.get(line["target"], -1) for line in lines])
    values = _recalls(_ranks_of_pictures(run, lines, gallery, asked_Q), "")
    # the published "text-to-image" recall of VisDial ranks the texts of each picture
    is_turned = find_task(run.manifest["task"]).turns_in_paper and run.manifest["protocol"] == "paper"
    is_whole = len(asked_Q.unique()) == len(gallery) and not any(line.get("shown") for line in lines)
    if is_turned and not is_whole:
        raise DataError(
            f"{run.folder}: as published, every picture ranks the texts, and some pictures here have none; generate "
            "without --limit, or by --protocol corrected"
        )
    if is_whole:
        owners_G = torch.arange(len(gallery))
        backward = _recalls(ranks_of_owners(_rows(run, gallery), _rows(run, lines), owners_G, asked_Q), "")
        of_first = {name: _at_first(asked_Q.tolist(), each) for name, each in backward.items()}
        values = of_first if is_turned else values | _named(of_first, "i2t_")
    return Scores(tuple(line["id"] for line in lines), values, len(gallery), run.left_out())


def _gallery(run: Finished) -> list[Line]:
    return [line for line in run.lines if line["kind"] == "picture" and LEFT_OUT not in line]


def _ranks_of_pictures(run: Finished, lines: Sequence[Line], gallery: Sequence[Line], asked_Q: Tensor) -> Tensor:
    """int64[Q], a part of the questions at a time: all of COCO's are 200,000 and their pictures 40,000."""
    found, gallery_GE = [], _rows(run, gallery)
    for start in range(0, len(lines), _QUESTIONS_AT_ONCE):
        part = slice(start, start + _QUESTIONS_AT_ONCE)
        is_hit = asked_Q[part, None] == torch.arange(len(gallery))
        found.append(ranks_of_hits(_scores(run, lines[part], gallery, gallery_GE), is_hit))
    return torch.cat(found)


def _at_first(asked: Sequence[int], values: Sequence[float]) -> list[float]:
    """Values of pictures at the first question that asks for each; the others have none."""
    first = {place: question for question, place in reversed(list(enumerate(asked)))}
    return [values[place] if first[place] == question else math.nan for question, place in enumerate(asked)]


def _answered(run: Finished) -> Scores:
    lines = run.answered
    found = [vqa_accuracy(line["output"], line["references"]) for line in lines]
    values = {"accuracy": found}
    for kind in sorted({line["answer_type"] for line in lines}):
        mine = [line["answer_type"] == kind for line in lines]
        values[f"accuracy.{kind}"] = [each if is_mine else math.nan for each, is_mine in zip(found, mine, strict=True)]
    return Scores(tuple(line["id"] for line in lines), values, 0, run.left_out())


def _ranked(run: Finished) -> Scores:
    lines = run.answered
    scores_BN = torch.tensor([line["scores"] for line in lines], dtype=torch.float64)
    is_hit_BN = torch.zeros_like(scores_BN, dtype=torch.bool)
    is_hit_BN[torch.arange(len(lines)), torch.tensor([line["right"] for line in lines])] = True
    ranks_B = ranks_of_hits(scores_BN, is_hit_BN)
    values = _recalls(ranks_B, "", ANSWER_RANKS) | {"mrr": (1 / (ranks_B.double() + 1)).tolist()}
    if find_task(run.manifest["task"]).ranks_both_ways:
        values |= _backward_recalls(run, lines, scores_BN)
    rated = [place for place, line in enumerate(lines) if any(line.get("relevance", ()))]
    if rated:
        relevance_BN = torch.tensor([lines[place]["relevance"] for place in rated], dtype=torch.float64)
        gains = torch.full((len(lines),), float("nan"), dtype=torch.float64)
        gains[rated] = ndcg(scores_BN[rated], relevance_BN)
        values["ndcg"] = gains.tolist()
    return Scores(tuple(line["id"] for line in lines), values, scores_BN.shape[1], run.left_out())


def _backward_recalls(run: Finished, lines: Sequence[Line], scores_BN: Tensor) -> Values:
    """Recalls of questions that their right candidates rank; nan where --limit left a candidate without a question."""
    num_asked = Counter(tuple(line["candidates"]) for line in run.lines)
    is_whole = [num_asked[tuple(line["candidates"])] >= len(line["candidates"]) for line in lines]
    found = _recalls(_ranks_of_questions(lines, scores_BN), "t2i_", ANSWER_RANKS)
    if not any(is_whole):
        return {}
    return {
        name: [value if is_here else math.nan for value, is_here in zip(values, is_whole, strict=True)]
        for name, values in found.items()
    }


def _ranks_of_questions(lines: Sequence[Line], scores_BN: Tensor) -> Tensor:
    """int64[B]: where its right candidate ranks each question among the answered ones with the same candidates."""
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, line in enumerate(lines):
        groups[tuple(line["candidates"])].append(place)
    ranks_B = torch.zeros(len(lines), dtype=torch.long)
    for places in groups.values():
        right = [lines[place]["right"] for place in places]
        ranks_B[places] = ranks_of_hits(scores_BN[places][:, right].T, torch.eye(len(places), dtype=torch.bool))
    return ranks_B


def _recalls(ranks: Tensor, prefix: str, ks: Sequence[int] = RETRIEVAL_RANKS) -> Values:
    return {f"{prefix}r@{k}": (ranks < k).double().tolist() for k in ks}


def _named(values: Mapping[str, list[float]], prefix: str) -> Values:
    return {f"{prefix}{name}": each for name, each in values.items()}


def _scores(run: Finished, lines: Sequence[Line], gallery: Sequence[Line], gallery_GE: Tensor) -> Tensor:
    """float[Q, G], -inf at pictures that a question's own context shows.

    As published, that takes out the right one too, where it was shown before: such a story is never found.
    """
    scores_QG = _rows(run, lines) @ gallery_GE.T
    places = {line["target"]: place for place, line in enumerate(gallery)}
    is_paper = run.manifest["protocol"] == "paper"
    for row, line in enumerate(lines):
        shown = (name for name in line.get("shown", ()) if is_paper or name != line["target"])
        scores_QG[row, [places[name] for name in shown if name in places]] = -torch.inf
    return scores_QG


def _rows(run: Finished, lines: Sequence[Line]) -> Tensor:
    """float[len(lines), E] of the run's vectors."""
    files = {name: torch.from_numpy(read_rows(run.folder / name)) for name in {line["output"] for line in lines}}
    return torch.stack([files[line["output"]][line["row"]] for line in lines])
