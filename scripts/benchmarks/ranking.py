"""Answers to a dialogue scored on one reading of it, beside each of them with a reading of its own.

A language model of eight layers of 512 with OPT's vocabulary, random weights in float32, reads 150 tokens and scores
100 answers of 10 tokens each:
    rank_cpu_ratio    CPU seconds of one answer a call / of all in one call, both ours, so that neither wastes anything
The scores must agree.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from gill.models.gill import GillReader, GillTokenizer
from gill.types import Segment
from scripts.benchmarks.measure import BenchmarkError, cpu_seconds, print_bars, single_thread
from scripts.benchmarks.setting import FIRST_WORD, FULL, TINY, Sizes, build_model

BARS = {"rank_cpu_ratio": 5.0}
_TOLERANCE = 1e-5  # relative, float32


@dataclass(frozen=True)
class Scale:
    """Tokens of the context and of each answer."""

    sizes: Sizes
    num_context: int
    num_answers: int
    num_answer_tokens: int
    num_rounds: int


_LANGUAGE = {
    "hidden_size": 512,
    "word_embed_proj_dim": 512,
    "ffn_dim": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
}
FULL_SCALE = Scale(dataclasses.replace(FULL, language=_LANGUAGE), 150, 100, 10, 3)
TINY_SCALE = Scale(TINY, 20, 6, 3, 1)


class _Numbers:
    """A tokenizer whose words are ids written out."""

    bos_id = 2

    def words_of(self, texts: Sequence[str]) -> list[list[int]]:
        return [[int(word) for word in text.split()] for text in texts]


def ranking_bench(is_tiny: bool = False) -> dict[str, float]:
    """The ratio and the seconds behind it; see the module.

    Args:
        is_tiny: toy shapes, whose times mean nothing.

    Raises:
        BenchmarkError: the two ways give different scores.
    """
    scale = TINY_SCALE if is_tiny else FULL_SCALE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reader = GillReader(build_model(scale.sizes), cast(GillTokenizer, _Numbers()), None)
        context = _text(scale, scale.num_context - 1)  # the beginning of sequence is one more
        answers = [_text(scale, scale.num_answer_tokens) for _ in range(scale.num_answers)]
    with single_thread():
        _require_same(_alone(reader, context, answers), _together(reader, context, answers))
        rounds = []
        for _ in range(scale.num_rounds):
            alone = cpu_seconds(lambda: _alone(reader, context, answers))
            rounds.append((alone, cpu_seconds(lambda: _together(reader, context, answers))))
            print(f"ranking: {alone:.2f} s against {rounds[-1][1]:.2f} s", file=sys.stderr, flush=True)
    alone, together = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    results = {"rank_cpu_ratio": alone / together, "rank_cpu_seconds": together}
    print_bars(results, BARS)
    return results


def _text(scale: Scale, length: int) -> str:
    return " ".join(map(str, torch.randint(FIRST_WORD, scale.sizes.num_words, (length,)).tolist()))


def _together(reader: GillReader, context: str, answers: Sequence[str]) -> list[float]:
    (found,) = reader.continuation_log_likelihoods([[Segment(text=context)]], [answers])
    return [float(scores.sum()) for scores in found]


def _alone(reader: GillReader, context: str, answers: Sequence[str]) -> list[float]:
    return [score for answer in answers for score in _together(reader, context, [answer])]


def _require_same(alone: Sequence[float], together: Sequence[float]) -> None:
    if any(abs(one - other) > _TOLERANCE * abs(one) for one, other in zip(alone, together, strict=True)):
        raise BenchmarkError("answers scored together and alone differ; this would compare different work")
