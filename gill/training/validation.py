"""Validation over a whole set: losses, token accuracy, recall both ways, BLEU, and the pictures people look at.

Batches are dealt to the processes whole, so the scores do not depend on how many there are. Nothing bad is replaced.

Shape legend: N = pairs of the set, E = retrieval width, L x C = conditioning sequence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gill.data import BadSample, BadSamples, Source, validation_batches
from gill.distributed import World, gather_objects
from gill.errors import DataError
from gill.metrics import bleu_scores, retrieval_recalls
from gill.types import Batch, Evaluation, Illustrator, SampleEncoder, TrainingTask

# Which count of a batch each loss part is a mean over; every other part is a mean over its rows.
_TOKEN_PARTS = ("captioning", "text")


@dataclass
class _Found:
    """What one process saw of its batches; batches by their number in the set."""

    sums: Counter[str] = field(default_factory=Counter)
    rows: dict[int, list[int]] = field(default_factory=dict)
    text: dict[int, Tensor] = field(default_factory=dict)
    image: dict[int, Tensor] = field(default_factory=dict)
    conditioning: dict[int, Tensor] = field(default_factory=dict)
    captions: dict[int, list[tuple[str, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Validation:
    """Results over the whole set.

    Attributes:
        scores: by name, without the "val/" before it.
        rows: row numbers that were scored, in order; row i of the tensors is `rows[i]`.
        text, image: float[N, E] retrieval rows, None for a family without retrieval.
        conditioning: float[n, L, C] of the first batch, or None.
        captions: (generated, true) of the first pictures.
    """

    scores: dict[str, float]
    rows: list[int]
    text: Tensor | None
    image: Tensor | None
    conditioning: Tensor | None
    captions: list[tuple[str, str]]


@dataclass(frozen=True)
class Validator:
    """A validation set and how it is read.

    Attributes:
        num_steps: batches, -1 for the whole set. num_captions: pictures described in words, when anything can.
    """

    source: Source
    encoder: SampleEncoder
    batch_size: int
    num_steps: int = -1
    num_captions: int = 0
    num_workers: int = 0

    def run(
        self, task: TrainingTask, world: World, device: torch.device, bad: BadSamples, illustrator: Illustrator | None
    ) -> Validation:
        """Score the set; every process of `world` scores a share and gets the same result.

        Raises:
            DataError: not a single sample can be read, or too many are bad.
        """
        task.train(False)
        found = self._own_batches(task, world, device, bad, illustrator)
        task.train(True)
        return _merge(gather_objects(found) if world.size > 1 else [found])

    def _own_batches(
        self, task: TrainingTask, world: World, device: torch.device, bad: BadSamples, illustrator: Illustrator | None
    ) -> _Found:
        num_rows = len(self.source) if self.num_steps < 0 else min(len(self.source), self.num_steps * self.batch_size)
        starts = range(0, num_rows, self.batch_size)
        own = [number for number in range(len(starts)) if number % world.size == world.rank]
        rows = {number: list(range(starts[number], min(starts[number] + self.batch_size, num_rows))) for number in own}
        order = [row for number in own for row in rows[number]]
        found = _Found()
        read = validation_batches(self.source, self.encoder, order, self.batch_size, self.num_workers)
        for number, (batch, left_out) in zip(own, read, strict=True):
            bad.add(left_out, num_tried=len(rows[number]))
            if batch is None:
                continue
            found.rows[number] = _readable(rows[number], left_out, self.source)
            _add(found, number, batch, task.evaluate(batch.to(device)))
            if illustrator is not None and starts[number] < self.num_captions:
                found.captions[number] = _described(batch, illustrator, self.num_captions - starts[number])
        return found


def _add(found: _Found, number: int, batch: Batch, evaluation: Evaluation) -> None:
    losses = evaluation.losses
    for name, value in losses.parts.items():
        weight = losses.label_counts.get(name, 0) if name in _TOKEN_PARTS else len(batch)
        found.sums.update({f"{name}/sum": float(value) * weight, f"{name}/weight": weight})
    found.sums.update({"loss/sum": float(losses.total) * len(batch), "loss/weight": len(batch)})
    found.sums.update({"cut_texts/sum": len(batch.cut_rows), "cut_texts/weight": len(batch)})
    found.sums.update(top1=evaluation.num_top1, top5=evaluation.num_top5, tokens=evaluation.num_tokens)
    if evaluation.embeddings is not None:
        found.text[number] = evaluation.embeddings.text.float().cpu()
        found.image[number] = evaluation.embeddings.image.float().cpu()
    if evaluation.conditioning is not None and number == 0:
        found.conditioning[number] = evaluation.conditioning.float().cpu()


def _readable(rows: Sequence[int], left_out: Sequence[BadSample], source: Source) -> list[int]:
    places = {(bad.source, bad.line) for bad in left_out}
    return [row for row in rows if source.place(row) not in places]


def _described(batch: Batch, illustrator: Illustrator, limit: int) -> list[tuple[str, str]]:
    words = illustrator.describe(batch.images[:limit])
    return [(text, record.caption) for text, record in zip(words, batch.records[: len(words)], strict=True)]


def _merge(parts: Sequence[_Found]) -> Validation:
    """Put the processes' batches back into the set's order."""
    numbers = sorted(number for part in parts for number in part.rows)
    if not numbers:
        raise DataError("validation could not read a single sample; see bad_samples.jsonl")
    sums = Counter[str]()
    for part in parts:
        sums.update(part.sums)

    def joined(name: str) -> Tensor | None:
        by_number = {number: tensor for part in parts for number, tensor in getattr(part, name).items()}
        return torch.cat([by_number[number] for number in sorted(by_number)]) if by_number else None

    text, image = joined("text"), joined("image")
    captions = {number: pairs for part in parts for number, pairs in part.captions.items()}
    pairs = [pair for number in sorted(captions) for pair in captions[number]]
    scores = _loss_scores(sums)
    if text is not None and image is not None:
        scores |= retrieval_recalls(text, image)
    if pairs:
        scores |= bleu_scores([said for said, _ in pairs], [[true] for _, true in pairs])
    rows = {number: own for part in parts for number, own in part.rows.items()}
    ordered = [row for number in numbers for row in rows[number]]
    return Validation(scores, ordered, text, image, joined("conditioning"), pairs)


def _loss_scores(sums: Counter[str]) -> dict[str, float]:
    names = sorted(name.removesuffix("/sum") for name in sums if name.endswith("/sum"))
    scores = {name: sums[f"{name}/sum"] / max(sums[f"{name}/weight"], 1) for name in names}
    tokens = max(sums["tokens"], 1)
    return {**scores, "token_accuracy": sums["top1"] / tokens, "token_accuracy_top5": sums["top5"] / tokens}
