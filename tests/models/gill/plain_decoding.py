"""Decoding restated without cache, batch or mask: a reply is right if each token follows from one plain reading.

The choice at a place depends on what stands before it alone, so one reading of prompt and reply checks all choices.
"""

from __future__ import annotations

from random import Random

import torch
from PIL import Image
from torch import Tensor

from gill.models.gill import GillModel, GillTokenizer
from gill.types import GenerationOptions, Segment

WORDS = ("a", "red", "circle", "near", "two", "blue dogs", "and", "the old tree", "looks at", "birds.", "é")


def random_prompt(rng: Random, pictures: list[Image.Image]) -> list[Segment]:
    """One to five texts and pictures in any order, 1 to about 60 tokens."""
    parts = []
    for _ in range(rng.randint(1, 5)):
        if rng.random() < 0.4:
            parts.append(Segment(image=rng.choice(pictures)))
        else:
            parts.append(Segment(text=" ".join(rng.choices(WORDS, k=rng.randint(1, 4)))))
    return parts


def random_pictures(count: int) -> list[Image.Image]:
    """Plain pictures of different colours."""
    return [Image.new("RGB", (32, 32), (37 * number % 256, 91 * number % 256, 50)) for number in range(count)]


def plain_embeddings(
    model: GillModel, tokenizer: GillTokenizer, prompt: list[Segment], pixels: dict[int, Tensor]
) -> Tensor:
    """float[S, D] of a prompt: one beginning of sequence before the first text, else at the end."""
    rows, has_begun = [], False
    for part in prompt:
        if part.image is not None:
            rows.append(model.visual_prefix(model.image_features(pixels[id(part.image)][None]))[0])
            continue
        ids = tokenizer.words(part.text or "")
        rows.append(word_rows(model, ids if has_begun else [tokenizer.bos_id, *ids]))
        has_begun = True
    if not has_begun:
        rows.append(word_rows(model, [tokenizer.bos_id]))
    return torch.cat(rows)


def word_rows(model: GillModel, ids: list[int]) -> Tensor:
    """float[n, D] of words and [IMG] tokens."""
    table = torch.cat([model.language.table[: model.vocabulary.num_words], model.img_tokens.input_rows])
    return table[torch.tensor(ids)]


def plain_hidden(model: GillModel, embeddings_SD: Tensor) -> Tensor:
    """float[S, D] last hidden states of one text, read whole by the network's own forward."""
    network = model.language.model.base_model
    return network(inputs_embeds=embeddings_SD[None], use_cache=False).last_hidden_state[0]


def plain_reply(
    model: GillModel, states_SD: Tensor, said: tuple[int, ...], options: GenerationOptions, end_id: int
) -> list[int]:
    """The greedy reply that the states of prompt and `said` lead to; equal to `said` if that is right.

    Args:
        states_SD: float[S, D] of the prompt with `said` behind it.
    """
    first, size = model.vocabulary.num_words, model.vocabulary.size
    before, reply, num_images = len(states_SD) - len(said) - 1, [], 0
    for step in range(options.num_words):
        logits = model.logits(states_SD[before + len(reply)])
        logits[first] = logits[first] + options.img_logit_bias if step >= options.min_word_tokens else -torch.inf
        logits[first + 1 :] = -torch.inf
        token = int(logits.argmax())
        num_images += token == first
        if num_images > options.max_num_images:
            break
        reply += range(first, size) if token == first else [token]
        if token == end_id or tuple(reply) != said[: len(reply)]:
            break
    return reply
