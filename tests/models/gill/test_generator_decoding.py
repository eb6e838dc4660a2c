"""Cached is uncached, together is one by one: the same ids and states as decoding restated in `plain_decoding`.

Faults of the originals that cannot return (SYSTEMS 1f, 2f): an image on the last step crashes (1f 1, 2f 4); in a batch
the other [IMG] tokens never follow, and rows cannot be padded (1f 10); the whole text is read again for each word and
decoding goes on after the end of sequence (1f 30, 2f 11); a negative logit turns a factor around (1f 7, 2f 5).
"""

from dataclasses import replace
from random import Random

import pytest
import torch

from gill.backbones import tiny_image_transform
from gill.models.gill import GillGenerator
from gill.types import GenerationOptions, Segment
from tests.models.gill.plain_decoding import (
    plain_embeddings,
    plain_hidden,
    plain_reply,
    random_pictures,
    random_prompt,
    word_rows,
)
from tests.models.gill.tiny_gill import tiny_generator

NUM_WORDS = 8
GREEDY = GenerationOptions(num_words=NUM_WORDS, stop_at_newline=False)
PICTURES = random_pictures(8)
PIXELS = {id(picture): tiny_image_transform()(picture) for picture in PICTURES}


def prompts(count: int, seed: int = 0) -> list[list[Segment]]:
    rng = Random(seed)
    return [random_prompt(rng, PICTURES) for _ in range(count)]


def image_places(generator: GillGenerator, ids: tuple[int, ...]) -> list[int]:
    return [place for place, token in enumerate(ids) if token == generator.img_ids[0]]


def natural_bias(generator: GillGenerator, asked: list[list[Segment]]) -> float:
    """A bias at which images come in some rows and places, not in all."""
    logits = generator.next_logits(asked)
    first = generator.img_ids[0]
    return float((logits[:, :first].amax(-1) - logits[:, first]).quantile(0.3))


@pytest.mark.parametrize(
    ("family", "dtype", "count"),
    [
        ("opt", "float64", 200),
        ("llama", "float64", 200),
        ("gpt2", "float64", 200),
        ("gpt-neox", "float64", 20),
        ("qwen2", "float64", 20),
        ("opt-post-norm", "float64", 20),
        ("opt", "float32", 60),
        ("llama", "float32", 60),
        ("gpt2", "float32", 60),
    ],
)
@torch.no_grad()
def test_together_and_cached_is_one_by_one_and_uncached(family: str, dtype: str, count: int) -> None:
    generator = tiny_generator(family, dtype)
    model, end_id, asked = generator.model, generator.tokenizer.eos_id, prompts(count)
    bias = natural_bias(generator, asked)
    options = replace(GREEDY, img_logit_bias=bias, min_word_tokens=2, max_num_images=2)
    said = [row for at in range(0, count, 20) for row in generator.decode(asked[at : at + 20], options, range(20))]
    for prompt, found in zip(asked, said, strict=True):
        embeddings = plain_embeddings(model, generator.tokenizer, prompt, PIXELS)
        states = plain_hidden(model, torch.cat([embeddings, word_rows(model, list(found.ids))]))
        assert plain_reply(model, states, found.ids, options, end_id) == list(found.ids)
        wanted = states[len(embeddings) :][: len(found.hidden)]
        torch.testing.assert_close(found.hidden, wanted, atol=1e-5 if dtype == "float32" else 1e-12, rtol=0)
    places = [image_places(generator, found.ids) for found in said]
    assert len({place for row in places for place in row}) > 1, "images come in several places"
    assert count < 60 or not all(places), "and not in every row"
