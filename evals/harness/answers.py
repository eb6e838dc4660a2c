"""From a batch of questions to lines of a run, with the files they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evals.harness.items import SUM, Item, reason_of, seed_of, with_pictures
from evals.harness.runs import LEFT_OUT, PICTURES, VECTORS, Line
from evals.harness.systems import System
from evals.harness.tasks import ANSWERING, CAPTIONING, DRAWING, RANKING, RETRIEVAL
from gill.errors import DataError
from gill.files import write_array
from gill.flatland.writer import write_picture

MAX_CAPTION_TOKENS, MAX_ANSWER_TOKENS = 48, 10
WITHHELD = "the safety checker withheld the picture"


@dataclass(frozen=True)
class Answerer:
    """Answers batches of one run.

    Attributes:
        folder: of the run. data: of the questions. seed: of the run.
        is_squashed, rating: what the protocol does to pictures, and how it makes scores of candidates.
    """

    system: System
    answer: str
    folder: Path
    data: Path
    seed: int
    is_squashed: bool = False
    rating: str = SUM

    def lines(self, number: int, items: Sequence[Item]) -> list[Line]:
        """One line for each item, those that had to be left out included; files are written first.

        Args:
            number: of the batch; names files that hold answers of a whole batch.
        """
        lines: dict[str, Line] = {item.id: item.to_json(self.data) for item in items}
        opened = []
        for item in items:
            try:
                opened.append(with_pictures(item, self.is_squashed))
            except DataError as error:
                lines[item.id][LEFT_OUT] = reason_of(error)
        if opened:
            seeds = [seed_of(self.seed, item.id) for item in opened]
            answer: dict[str, Callable[[int, Sequence[Item], Sequence[int]], list[dict[str, Any]]]] = {
                DRAWING: self._drawn,
                RETRIEVAL: self._embedded,
                RANKING: self._rated,
                CAPTIONING: partial(self._described, MAX_CAPTION_TOKENS),
                ANSWERING: partial(self._described, MAX_ANSWER_TOKENS),
            }
            for item, said in zip(opened, answer[self.answer](number, opened, seeds), strict=True):
                lines[item.id] |= said
        return list(lines.values())

    def _drawn(self, number: int, items: Sequence[Item], seeds: Sequence[int]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for item, seed, picture in zip(items, seeds, self.system.draw(items, seeds), strict=True):
            name = f"{PICTURES}/{item.id}.png"
            if picture is not None:
                write_picture(self.folder / name, picture)
            found.append({"seed": seed, **({LEFT_OUT: WITHHELD} if picture is None else {"output": name})})
        return found

    def _embedded(self, number: int, items: Sequence[Item], seeds: Sequence[int]) -> list[dict[str, Any]]:
        name = f"{VECTORS}/{number:06d}.npy"
        write_array(self.folder / name, self.system.embed(items, seeds).float().numpy())
        return [{"output": name, "row": row} for row in range(len(items))]

    def _rated(self, number: int, items: Sequence[Item], seeds: Sequence[int]) -> list[dict[str, Any]]:
        return [{"scores": scores} for scores in self.system.rate(items, seeds, self.rating)]

    def _described(
        self, num_tokens: int, number: int, items: Sequence[Item], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        return [{"output": text} for text in self.system.describe(items, seeds, num_tokens)]


def read_rows(path: Path) -> np.ndarray:
    """float32[N, E] of a file of vectors.

    Raises:
        DataError: it is not there, or damaged.
    """
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}); remove its run and generate again") from error
