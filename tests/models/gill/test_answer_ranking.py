"""Answers to a dialogue, scored on one reading of it, get what each gets alone.

The original reads dialogue, picture and answer again for each of a hundred answers, and scores each token by the state
at the token itself.
"""

import math
from random import Random

import pytest
import torch

from gill.backbones import tiny_image_transform
from gill.errors import GenerationError
from gill.models.gill import GillGenerator
from gill.models.gill.continuations import TOKENS_AT_ONCE
from gill.types import Segment
from tests.models.gill.fakes import passes_of
from tests.models.gill.plain_decoding import plain_embeddings, plain_hidden, random_pictures, word_rows
from tests.models.gill.tiny_gill import tiny_generator

PICTURE = random_pictures(2)[1]
PIXELS = {id(PICTURE): tiny_image_transform()(PICTURE)}
DIALOGUE = [Segment(image=PICTURE), Segment(text="Q: is it red?\nA: no\nQ: is there a dog beside it?\nA: ")]


def answers(count: int, num_phrases: int = 3) -> list[str]:
    rng = Random(1)
    words = ("yes", "no", "a dog", "it is é", "two of them", "i can't tell")
    return [" ".join(rng.choices(words, k=rng.randint(1, num_phrases))) for _ in range(count)]


def plain_scores(generator: GillGenerator, answer: str, is_shifted: bool) -> list[float]:
    """Of one answer, by one plain reading of everything."""
    model, tokenizer = generator.model, generator.tokenizer
    before = plain_embeddings(model, tokenizer, DIALOGUE, PIXELS)
    ids = tokenizer.words(answer) if is_shifted else [tokenizer.bos_id, *tokenizer.words(answer)]
    states = plain_hidden(model, torch.cat([before, word_rows(model, ids)]))
    log_probabilities = model.logits(states[len(before) - is_shifted :]).log_softmax(-1)
    return [float(row[token]) for row, token in zip(log_probabilities, ids, strict=False)]


@pytest.mark.parametrize("family", ["opt", "opt-projected", "opt-post-norm", "llama", "qwen2", "gpt2", "gpt-neox"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize("is_shifted", [True, False])
@torch.no_grad()
def test_answers_score_together_as_alone(family: str, dtype: str, tolerance: float, is_shifted: bool) -> None:
    generator, texts = tiny_generator(family, dtype), answers(10, num_phrases=12)
    assert sum(map(len, texts)) > 1.5 * TOKENS_AT_ONCE, "more than one pass"
    (found,) = generator.continuation_log_likelihoods([DIALOGUE], [texts], is_shifted)
    for text, scores in zip(texts, found, strict=True):
        wanted = plain_scores(generator, text, is_shifted)
        assert len(scores) == len(wanted)
        assert float(scores.double().sum()) == pytest.approx(math.fsum(wanted), rel=tolerance)


def test_answers_are_what_ends_a_prompt() -> None:
    generator, texts = tiny_generator("llama"), ["a", "blue dogs", "é"]
    whole = generator.log_likelihoods([[*DIALOGUE, Segment(text=text)] for text in texts])
    (before,) = generator.log_likelihoods([DIALOGUE])
    (parts,) = generator.continuation_log_likelihoods([DIALOGUE], [texts])
    for text, one, other in zip(texts, whole, parts, strict=True):
        assert len(other) == len(generator.tokenizer.words(text))
        torch.testing.assert_close(one, torch.cat([before, other]), atol=1e-10, rtol=0)


def test_the_dialogue_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, texts = tiny_generator(), answers(100)
    seen = passes_of(generator, monkeypatch)
    generator.continuation_log_likelihoods([DIALOGUE], [texts])
    num_tokens = sum(len(generator.tokenizer.words(text)) for text in texts)
    assert len(seen) > 2 and all(lines == 1 and width <= TOKENS_AT_ONCE for lines, width in seen)
    assert sum(width for _, width in seen[1:]) == num_tokens, "of each answer its own tokens alone"


def test_each_prompt_has_answers_of_its_own() -> None:
    generator = tiny_generator("gpt2")
    other = [Segment(text="what is it?"), Segment(image=PICTURE)]
    together = generator.continuation_log_likelihoods([DIALOGUE, other], [["yes", "no"], ["a dog"]])
    alone = generator.continuation_log_likelihoods([DIALOGUE], [["yes", "no"]])
    alone += generator.continuation_log_likelihoods([other], [["a dog"]])
    assert [len(group) for group in together] == [2, 1]
    for group, wanted in zip(together, alone, strict=True):
        torch.testing.assert_close(group, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("texts", [[], ["yes", ""]])
def test_nothing_to_score_is_refused(texts: list[str]) -> None:
    with pytest.raises(GenerationError, match="at least one"):
        tiny_generator().continuation_log_likelihoods([DIALOGUE], [texts])


def test_each_prompt_needs_room_for_its_own_answers_alone() -> None:
    """250 + 2 and 10 + 200 tokens fit into 256; 250 + 200 are not asked for."""
    prompts = [[Segment(text="x" * 249)], [Segment(text="x" * 9)]]
    found = tiny_generator().continuation_log_likelihoods(prompts, [["ab"], ["y" * 200]])
    assert [len(scores) for group in found for scores in group] == [2, 200]


def test_an_answer_that_does_not_fit_is_refused() -> None:
    with pytest.raises(GenerationError, match="the language model reads 256"):
        tiny_generator().continuation_log_likelihoods([DIALOGUE], [["yes", "x" * 300]])
