"""Cached is uncached, together is one by one: every token and state follows from one plain reading of the text.

The originals cannot do this: an image on the last step raises, in a batch [IMG1] and the rest never come and rows
cannot be padded, the whole text is read again for each word, and decoding goes on after the end of sequence.
"""

import math
from dataclasses import replace
from random import Random

import pytest
import torch

from gill.backbones import decoding_cache, tiny_image_transform
from gill.models.gill import GillGenerator
from gill.types import GenerationOptions, Segment
from tests.models.gill.fakes import passes_of
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
        ("opt", "float32", 200),
        ("llama", "float32", 200),
        ("gpt2", "float32", 200),
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
    assert any(places), "images come"
    if count >= 60:
        assert len({place for row in places for place in row}) > 1, "in several places"
        assert not all(places), "and not in every row"


@pytest.mark.parametrize("num_words", [1, 3])
def test_an_image_on_the_last_step_has_its_states(num_words: int) -> None:
    """In the originals they are never computed, and the reply raises."""
    generator = tiny_generator()
    options = GenerationOptions(num_words=num_words, min_word_tokens=num_words - 1, img_logit_bias=1e4)
    said = generator.decode([[Segment(text="a cat")]], options, [0])[0]
    assert said.ids[num_words - 1 :] == generator.img_ids
    assert len(said.hidden) == len(said.ids)


@pytest.mark.parametrize("num_rows", [1, 2])
def test_the_text_is_read_once(num_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The originals read prompt and reply again for each word: 24 + 25 + ... + 31 positions here."""
    generator = tiny_generator()
    seen = passes_of(generator, monkeypatch)
    prompts = [[Segment(text="x" * 23)]] * num_rows
    said = generator.decode(prompts, replace(GREEDY, max_num_images=0), [0] * num_rows)
    assert [len(row.ids) for row in said] == [NUM_WORDS] * num_rows
    assert math.prod(seen[0]) == 24 * num_rows
    assert seen[1:] == [(num_rows, 1)] * (NUM_WORDS - 1), "the last word is not read: nothing follows it"


def test_prompts_of_mixed_lengths_are_read_without_pads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Side by side, so that a long one does not lengthen the others: padded to it these would be 16 x 64 positions."""
    generator = tiny_generator()
    seen = passes_of(generator, monkeypatch)
    lengths = [16 + 48 * number // 15 for number in range(16)]
    generator.decode([[Segment(text="x" * (length - 1))] for length in lengths], GREEDY, range(16))
    assert sum(lengths) <= math.prod(seen[0]) < 1.1 * sum(lengths)


def test_sampled_words_depend_on_the_seed_and_not_on_the_batch() -> None:
    generator = tiny_generator()
    options = replace(GREEDY, temperature=1.0, top_p=0.9, top_k=50)
    asked = prompts(6)
    together = [row.ids for row in generator.decode(asked, options, range(6))]
    alone = [generator.decode([prompt], options, [seed])[0].ids for seed, prompt in enumerate(asked)]
    assert together == alone
    assert len({generator.decode(asked[:1], options, [seed])[0].ids for seed in range(5)}) > 1


def test_likelihoods_are_those_of_a_plain_reading() -> None:
    generator = tiny_generator("gpt2")
    model, tokenizer = generator.model, generator.tokenizer
    prompt = [Segment(image=PICTURES[1]), Segment(text="a cat")]
    states = plain_hidden(model, plain_embeddings(model, tokenizer, prompt, PIXELS))
    ids = [tokenizer.bos_id, *tokenizer.words("a cat")]
    wanted = [model.logits(states[place + 1]).log_softmax(-1)[token].item() for place, token in enumerate(ids)]
    (found,) = generator.log_likelihoods([prompt])
    assert found.tolist() == pytest.approx(wanted), (
        "two visual tokens stand first, so the state before id 0 is the second"
    )


def test_the_cache_gives_back_what_was_written_through_growth_and_selection() -> None:
    """Against a plain concatenation, far beyond the first buffer."""
    cache, layers = decoding_cache(), 2
    wanted: list[list[torch.Tensor]] = [[] for _ in range(layers)]
    rows = torch.arange(3)
    for step in range(150):
        if step == 90:
            rows = torch.tensor([2, 0, 0, 1])
            cache.batch_select_indices(rows)
            wanted = [[torch.cat(each, dim=2)[rows]] for each in wanted]
        for layer in range(layers):
            new = torch.randn(len(rows), 4, 1 + step % 3, 5)
            wanted[layer].append(new)
            keys, values = cache.update(new, -new, layer)
            assert torch.equal(keys, torch.cat(wanted[layer], dim=2))
            assert torch.equal(values, -keys)
    assert cache.get_seq_length() == sum(1 + step % 3 for step in range(150))
    cache.batch_repeat_interleave(2)
    new = torch.randn(8, 4, 1, 5)
    keys, values = cache.update(new, -new, 0)
    assert torch.equal(keys, torch.cat([torch.cat(wanted[0], dim=2).repeat_interleave(2, 0), new], dim=2))
    assert torch.equal(values, -keys)
    cache.crop(-3)
    more, _ = cache.update(new, -new, 0)
    assert torch.equal(more, torch.cat([keys[:, :, :-3], new], dim=2))
    cache.reset()
    keys, _ = cache.update(new[:3], -new[:3], 0)
    assert torch.equal(keys, new[:3])
