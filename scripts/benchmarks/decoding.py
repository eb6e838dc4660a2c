"""Decoding with one reading of every token, beside what it replaces; the answers must be the same.

An OPT-125m of random weights in float32 says 32 tokens greedily:
    decode_ratio    one prompt of 256 tokens; the original reads all of it again for every token, with the logits of
                    every position (github.com/kohjingyu/gill 4600b71, gill/models.py, GILLModel.generate) / ours
    batch_ratio     16 prompts of 16 to 64 tokens, one by one / together, both ours
Both by the clock with all cores; decode_cpu_ratio and batch_cpu_ratio are the same in CPU seconds of one thread. Of
each side the shortest of alternating runs counts. One row reads weights and a batch multiplies them, so hosts whose
memory is fast for their arithmetic do well in the first ratio and badly in the second, and the other way round.

Shape legend: S = tokens so far, D = width, K = words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from gill.models.gill import GillModel, GillTokenizer
from gill.models.gill.decoding import Decoder
from gill.models.gill.prompts import Prompts
from gill.models.gill.replies import Endings
from gill.types import GenerationOptions
from scripts.benchmarks.measure import (
    BenchmarkError,
    Sides,
    clock_seconds,
    cpu_seconds,
    print_bars,
    shortest,
    single_thread,
)
from scripts.benchmarks.setting import FIRST_WORD, FULL, TINY, Sizes, build_model

BARS = {"decode_ratio": 10.0, "batch_ratio": 5.0}


@dataclass(frozen=True)
class Scale:
    """Prompt lengths in tokens, and how many tokens are said."""

    sizes: Sizes
    long_prompt: int
    prompts: tuple[int, ...]
    num_words: int
    num_rounds: int
    num_cpu_rounds: int


FULL_SCALE = Scale(FULL, 256, tuple(16 + 48 * number // 15 for number in range(16)), 32, 3, 1)
TINY_SCALE = Scale(TINY, 24, (4, 6, 9), 4, 1, 1)


class _Words:
    """A tokenizer in whose language nothing ever ends."""

    stop_ids = frozenset[int]()

    def decode(self, ids: Sequence[int]) -> str:
        return "word " * len(ids)


def decoding_bench(is_tiny: bool = False) -> dict[str, float]:
    """Both ratios and the seconds behind them; see the module.

    Args:
        is_tiny: toy shapes, whose times mean nothing.

    Raises:
        BenchmarkError: two ways said different things.
    """
    scale = TINY_SCALE if is_tiny else FULL_SCALE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(scale.sizes).eval()
        (long,) = _prompts(scale.sizes, [scale.long_prompt])
        many = _prompts(scale.sizes, scale.prompts)
    long_sides: Sides = (
        lambda: [plain_decode(model, long, scale.num_words)],
        lambda: decode(model, [long], scale.num_words),
    )
    many_sides: Sides = (
        lambda: [decode(model, [prompt], scale.num_words)[0] for prompt in many],
        lambda: decode(model, many, scale.num_words),
    )
    results: dict[str, float] = {}
    for name, sides in {"decode": long_sides, "batch": many_sides}.items():
        if sides[0]() != sides[1]():  # which also warms both up
            raise BenchmarkError("the two ways of decoding said different things; this would compare different work")
        plain, results[f"{name}_seconds"] = shortest(f"{name}, by the clock", sides, clock_seconds, scale.num_rounds)
        with single_thread():
            plain_cpu, ours_cpu = shortest(f"{name}, in CPU", sides, cpu_seconds, scale.num_cpu_rounds)
        results |= {f"{name}_ratio": plain / results[f"{name}_seconds"], f"{name}_cpu_ratio": plain_cpu / ours_cpu}
    print_bars(results, BARS)
    return results


def decode(model: GillModel, prompts: Sequence[Sequence[int]], num_words: int) -> list[list[int]]:
    """What our decoder says after each prompt."""
    options = GenerationOptions(num_words=num_words, max_num_images=0)
    decoder = Decoder(model, Endings(cast(GillTokenizer, _Words()), False), options)
    laid = Prompts(tuple(map(tuple, prompts)), tuple((True,) * len(prompt) for prompt in prompts), None)
    said: list[list[int]] = [[] for _ in prompts]
    for step in decoder.steps(laid, [torch.Generator() for _ in prompts]):
        for row, emission in zip(said, step, strict=True):
            assert emission is not None, "nothing ends here"
            row += emission.ids
    return said


@torch.no_grad()
def plain_decode(model: GillModel, prompt: Sequence[int], num_words: int) -> list[int]:
    """What the original's loop says: everything is read again for every token."""
    language, num_rows = model.language.model, model.vocabulary.num_words
    embeddings_1SD = language.get_input_embeddings()(torch.tensor([list(prompt)]))
    said: list[int] = []
    for _ in range(num_words):
        outputs = language(inputs_embeds=embeddings_1SD, use_cache=False, output_hidden_states=True)
        said.append(int(outputs.logits[0, -1, :num_rows].argmax()))
        next_1SD = language.get_input_embeddings()(torch.tensor([[said[-1]]]))
        embeddings_1SD = torch.cat([embeddings_1SD, next_1SD], dim=1)
    return said


def _prompts(sizes: Sizes, lengths: Sequence[int]) -> list[list[int]]:
    return [torch.randint(FIRST_WORD, sizes.num_words, (length,)).tolist() for length in lengths]
