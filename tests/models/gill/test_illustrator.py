"""Captions of pictures: with a cache as without, and cut where the picture's text ends."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gill.backbones import tiny_drawer, tiny_pipeline
from gill.models.gill import GillIllustrator, GillModel, GillTokenizer, find_preset, load_model


def build(**changes: object) -> tuple[GillModel, GillTokenizer]:
    return load_model(replace(find_preset("debug").model, **changes))


def plain_words(model: GillModel, ids: list[int], image: torch.Tensor, count: int) -> list[int]:
    """Greedy words, the whole text read again for each."""
    visual = model.visual_prefix(model.image_features(image))
    for _ in range(count):
        embeddings = model.embed(torch.tensor([ids]), visual)
        steps = torch.arange(len(ids))
        mask = torch.full((len(ids), len(ids)), torch.finfo(embeddings.dtype).min).triu(1)[None, None]
        hidden = model.language.hidden_states(embeddings, steps[None], mask)
        ids = [*ids, int(model.logits(hidden[0, -1])[: model.vocabulary.num_words].argmax())]
    return ids[-count:]


@pytest.mark.parametrize("prompt", ["", "a picture of"])
@torch.no_grad()
def test_a_cached_caption_is_the_plain_one(prompt: str) -> None:
    model, tokenizer = build(image_brackets=("(", ")"), input_prefix="look:")
    images = torch.randn(2, model.vision.feature_width, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]
    illustrator = GillIllustrator(model, tokenizer, prompt, max_words=5)
    picture = model.vocabulary.picture_ids(torch.arange(1))[0].tolist()
    opening = [*picture, *model.vocabulary.prefix, tokenizer.bos_id, *tokenizer.words(prompt)]
    ends = [tokenizer.eos_id, *tokenizer.words("("), *tokenizer.words("\n")]
    said = [plain_words(model, opening, image[None], 5) for image in images]
    kept = [list(itertools.takewhile(lambda token: token not in ends, ids)) for ids in said]
    assert illustrator.describe(images) == [tokenizer.decode(ids).strip() for ids in kept]


@pytest.mark.parametrize("ending", ["(a dog)", "\nQ: and", "</s>and"])
def test_a_caption_ends_where_its_picture_does(ending: str) -> None:
    model, tokenizer = build(stop_words="(")
    illustrator = GillIllustrator(model, tokenizer, max_words=16)
    said = iter([*tokenizer.words("a cat."), *tokenizer.words(ending)])

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(hidden), model.vocabulary.size)
        scores[:, next(said)] = 1
        return scores

    model.logits = logits  # type: ignore[method-assign]
    features = torch.zeros(1, model.vision.feature_width)  # type: ignore[union-attr]
    assert illustrator.describe(features) == ["a cat."]


def test_a_caption_is_no_longer_than_the_language_model_reads() -> None:
    model, tokenizer = build(stop_words="")
    limit = model.language.max_positions
    assert limit is not None
    word = tokenizer.words("dog")[0]
    model.logits = lambda hidden: torch.eye(model.vocabulary.size)[word].expand(len(hidden), -1)  # type: ignore[method-assign]
    features = torch.zeros(1, model.vision.feature_width)  # type: ignore[union-attr]
    told = GillIllustrator(model, tokenizer, max_words=10 * limit).describe(features)[0]
    assert 0 < len(tokenizer.words(told)) <= limit - model.config.num_visual_tokens


def test_without_a_diffusion_model_nothing_is_drawn() -> None:
    model, tokenizer = build()
    assert GillIllustrator(model, tokenizer).draw(torch.zeros(1, 12, 16), [0]) == []


def test_a_drawn_picture_is_the_drawers(tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path)
    model, tokenizer = build(diffusion=str(tmp_path))
    sequences = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    drawn = GillIllustrator(model, tokenizer, num_inference_steps=2, guidance_scale=3.0).draw(sequences, [4, 5])
    wanted = tiny_drawer().draw(sequences, [4, 5], 2, 3.0)
    assert [picture and picture.tobytes() for picture in drawn] == [picture and picture.tobytes() for picture in wanted]
