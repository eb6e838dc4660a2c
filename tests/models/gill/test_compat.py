"""The originals' calls: arguments, return shapes, and what they answered wrongly."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from PIL import Image

import gill
from gill import models, utils
from gill.errors import FetchError, GenerationError
from gill.mappers import DecisionHead
from gill.models.gill import (
    Fromage,
    Gill,
)
from gill.types import GenerationOptions, Segment
from tests.models.gill.fakes import CAT, FakeDrawer, FakeFetcher, FakeIndex, plain, steer
from tests.models.gill.tiny_gill import tiny_generator

FROMAGE = {
    "num_img_tokens": 1,
    "img_token_name": "[RET]",
    "conditioning_weight": 0.0,
    "img_logit_rule": "product",
    "diffusion": "",
}
MARKER = " [IMG0] [IMG1] [IMG2] [IMG3]"


def tiny_fromage(**parts: object) -> Fromage:
    return Fromage(tiny_generator(**FROMAGE, **parts))


def whole_gill(**parts: object) -> Gill:
    around = {"index": FakeIndex(30), "fetcher": FakeFetcher(), "drawer": FakeDrawer(), **parts}
    return Gill(tiny_generator(**around))


# GILL's calls


def test_the_originals_arguments_are_taken_in_its_order() -> None:
    wanted = (
        "prompts num_words min_word_tokens ret_scale_factor gen_scale_factor top_p temperature max_num_rets generator "
        "always_add_bos guidance_scale num_inference_steps"
    )
    assert " ".join(list(inspect.signature(Gill.generate_for_images_and_texts).parameters)[1:]) == wanted
    fromage = "prompts num_words ret_scale_factor top_p temperature max_num_rets max_img_per_ret"
    assert " ".join(list(inspect.signature(Fromage.generate_for_images_and_texts).parameters)[1:8]) == fromage
    assert list(inspect.signature(models.load_gill).parameters)[:3] == [
        "model_dir",
        "load_ret_embs",
        "decision_model_fn",
    ]


def test_a_notebooks_forced_image_has_the_originals_shape() -> None:
    generator = torch.Generator().manual_seed(1337)
    reply = whole_gill().generate_for_images_and_texts(
        [plain(1), "but in yellow"], num_words=2, ret_scale_factor=100.0, generator=generator
    )
    text, image = reply
    assert text == MARKER
    assert text.replace(MARKER, "") == "", "the form that notebooks and demo strip, so that no name is read again"
    assert list(image) == ["gen", "ret", "decision"]
    ((drawn, score),) = image["gen"]
    assert isinstance(drawn, Image.Image) and -1 <= score <= 1
    assert [(type(picture), kind, -1 <= cosine <= 1) for picture, kind, cosine in image["ret"]] == [
        (Image.Image, "ret", True)
    ] * 3
    assert image["decision"] == ["gen", [0.5, 0.5]], "the original has no choice at all without a classifier"


def test_text_without_images_is_one_string() -> None:
    model = whole_gill()
    steer(model.generator, *model.generator.tokenizer.words("It costs 3.50. More follows"))
    reply = model.generate_for_images_and_texts(["cost?"], num_words=14, min_word_tokens=14)
    assert reply == ["It costs 3.50."]
    steer(model.generator, model.generator.tokenizer.eos_id)
    assert model.generate_for_images_and_texts(["x"], num_words=4) == [""]


def test_text_after_an_image_follows_it() -> None:
    model = whole_gill()
    steer(model.generator, *model.generator.tokenizer.words("ab"), "image", *model.generator.tokenizer.words("cd"))
    first, image, last = model.generate_for_images_and_texts(["x"], num_words=5)
    assert (first, type(image), last) == (f"ab{MARKER}", dict, "cd")


def test_the_choice_names_a_picture_that_is_there() -> None:
    """The original indexes an empty list where no address answers, and says [0, 1] where it draws."""
    always_fetch = DecisionHead(32)
    always_fetch.linear.bias.data = torch.tensor([-50.0, 50.0])
    for parts, wanted in (
        ({"decision": always_fetch}, ["ret", [0.0, 1.0]]),
        ({"decision": always_fetch, "fetcher": FakeFetcher(lambda source: True)}, ["gen", [0.0, 1.0]]),
        ({"index": None, "fetcher": None}, ["gen", [1.0, 0.0]]),
    ):
        image = whole_gill(**parts).generate_for_images_and_texts(["x"], num_words=1, gen_scale_factor=1e5)[1]
        label, probabilities = image["decision"]
        assert [label, [round(p, 6) for p in probabilities]] == wanted
        assert image[label]


def test_factors_act_as_in_the_original() -> None:
    """|logit| times both factors where they exceed 1; below, nothing."""
    model = whole_gill()
    first, texts = model.generator.img_ids[0], "abcdefghij"
    rows = model.generator.next_logits([[Segment(text=text)] for text in texts])
    text, row = next((text, row) for text, row in zip(texts, rows, strict=True) if row[first] < 0)
    needed = float(row[:first].max() / row[first].abs())
    for ret, gen, is_image in (
        (1.1 * needed, 1.0, True),
        (needed**0.5, 1.1 * needed**0.5, True),
        (0.9 * needed, 0.5, False),
        (0.1, 0.2, False),
    ):
        reply = model.generate_for_images_and_texts([text], num_words=1, ret_scale_factor=ret, gen_scale_factor=gen)
        assert (len(reply) == 2) is is_image


def test_the_generator_gives_each_call_its_seed() -> None:
    model = whole_gill(index=None, fetcher=None)
    drawer = model.generator.images.drawer
    for seed in (1337, 1337, 7):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(2):
            model.generate_for_images_and_texts(["x"], num_words=1, ret_scale_factor=100.0, generator=generator)
    seeds = [call[1][0] for call in drawer.calls]  # type: ignore[union-attr]
    assert seeds[:2] == seeds[2:4] and len(set(seeds)) == 4
    torch.manual_seed(3)
    model.generate_for_images_and_texts(["x"], num_words=1, ret_scale_factor=100.0)


def test_every_text_may_begin_anew_and_other_things_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = whole_gill()
    asked: list[GenerationOptions] = []
    monkeypatch.setattr(model.generator, "generate", lambda prompt, options, seed: asked.append(options) or [])
    for always in (False, True):
        assert model.generate_for_images_and_texts(["a", "b"], num_words=8, always_add_bos=always) == [""]
    assert [options.repeats_bos for options in asked] == [False, True]
    monkeypatch.undo()
    with pytest.raises(GenerationError, match="texts and PIL pictures, got int"):
        model.generate_for_images_and_texts(["a", 3], num_words=1)  # type: ignore[list-item]
    with pytest.raises(GenerationError, match=r"num_words=0 .* write \[IMG0\]"):
        model.generate_for_images_and_texts(["a"])


def test_likelihood_scores_are_means_without_gradient() -> None:
    model = whole_gill()
    score = model.get_log_likelihood_scores([plain(2), "a cat"])
    assert score == pytest.approx(float(model.generator.log_likelihoods([[Segment(image=plain(2)), *CAT]])[0].mean()))


# FROMAGe's calls


def test_fromage_answers_with_strings_and_lists_of_pictures() -> None:
    model = tiny_fromage(index=FakeIndex(30), fetcher=FakeFetcher())
    steer(model.generator, *model.generator.tokenizer.words("see "), "image", *model.generator.tokenizer.words(" too"))
    first, pictures, last = model.generate_for_images_and_texts(["x"], num_words=9, max_img_per_ret=2, max_num_rets=2)
    assert (first, last) == ("see  [RET]", " too")
    assert [type(picture) for picture in pictures] == [Image.Image] * 2


def test_a_prompt_that_ends_in_ret_is_answered_at_ret_itself() -> None:
    """The original reads a position too early by the visual tokens before it."""
    fetcher = FakeFetcher()
    model = tiny_fromage(index=FakeIndex(30), fetcher=fetcher)
    prompt = [plain(4), "watercolor drawing [RET]"]
    text, pictures = model.generate_for_images_and_texts(prompt, max_img_per_ret=3)
    assert (text, len(pictures)) == ("watercolor drawing [RET]", 3)
    query = model.generator.conditioning_of([[Segment(image=plain(4)), Segment(text="watercolor drawing ")]]).queries
    assert fetcher.asked == [hit.source for hit in model.generator.images.index.search(query, 3)[0]]  # type: ignore[union-attr]
    with pytest.raises(GenerationError, match=r"write \[RET\] into it"):
        model.generate_for_images_and_texts(["no picture asked for"])


def test_ret_on_the_last_step_and_a_dead_host_do_not_end_the_reply() -> None:
    dead = FakeFetcher(lambda source: len(source) == 5)  # pictures 0 to 9
    model = tiny_fromage(index=FakeIndex(30), fetcher=dead)
    steer(model.generator, *model.generator.tokenizer.words("a"), "image")
    text, pictures = model.generate_for_images_and_texts(["x"], num_words=2, max_img_per_ret=5)
    assert (text, len(pictures)) == ("a [RET]", 5)
    unsteered = tiny_fromage()
    score = unsteered.get_log_lik_scores(["a cat"])
    assert score == pytest.approx(float(unsteered.generator.log_likelihoods([CAT])[0].mean()))


def test_no_call_keeps_a_graph() -> None:
    """FROMAGe's num_words=0 keeps the graph of the whole language model."""
    model = tiny_fromage(index=FakeIndex(30), fetcher=FakeFetcher()).generator
    named = [Segment(text="a[RET]")]
    assert not model.decode([named], GenerationOptions(num_words=0), [0])[0].hidden.requires_grad
    states = whole_gill().generator.conditioning_of([CAT])
    assert not any(tensor.requires_grad for tensor in (states.hidden, states.conditioning, states.queries))
    assert not model.next_logits([CAT]).requires_grad


def test_the_package_offers_what_old_notebooks_import() -> None:
    loaders: list[Callable] = [gill.load_gill, gill.load_fromage]
    assert loaders == [models.load_gill, models.load_fromage]
    with pytest.raises(AttributeError, match="no attribute 'load_lavit'"):
        gill.load_lavit()
    with pytest.raises(FetchError, match=r"127\.0\.0\.1"):
        utils.get_image_from_url("http://127.0.0.1/cat.png")
