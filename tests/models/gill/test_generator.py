"""Replies and prompts: what is said, in which order, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gill.errors import DataError, GenerationError, ShapeError
from gill.types import GenerationOptions, ImageDecided, ImageOutput, ImageReady, Segment, TextDelta
from tests.models.gill.fakes import CAT, FORCED, FakeDrawer, FakeFetcher, FakeIndex, plain, steer
from tests.models.gill.plain_decoding import random_pictures
from tests.models.gill.tiny_gill import tiny_generator


def test_text_goes_on_after_images_and_holds_no_leftover_tokens() -> None:
    """The original drops it, or begins it with [IMG1] to [IMG7]."""
    generator = tiny_generator()
    said = [*generator.tokenizer.words("It costs 3.50. Look: "), "image", *generator.tokenizer.words(" and "), "image"]
    steer(generator, *said, *generator.tokenizer.words(" so it goes. Bye\nnever said"))
    reply = generator.generate(CAT, GenerationOptions(num_words=60, max_num_images=2), seed=0)
    assert [part if isinstance(part, str) else "<image>" for part in reply] == [
        "It costs 3.50. Look: ",  # the original cuts at the first full stop: "It costs 3."
        "<image>",
        " and ",
        "<image>",
        " so it goes. Bye",
    ]


def test_a_reply_ends_at_the_end_of_sequence_and_where_an_image_too_many_begins() -> None:
    generator = tiny_generator()
    steer(generator, *generator.tokenizer.words("ab"), generator.tokenizer.eos_id, *generator.tokenizer.words("cd"))
    assert generator.generate(CAT, GenerationOptions(num_words=9), 0) == ["ab"]
    steer(
        generator,
        *generator.tokenizer.words("a"),
        "image",
        *generator.tokenizer.words("b"),
        "image",
        *generator.tokenizer.words("c"),
    )
    reply = generator.generate(CAT, GenerationOptions(num_words=9, max_num_images=1), 0)
    assert [part for part in reply if isinstance(part, str)] == ["a", "b"]


def test_newlines_before_the_first_word_do_not_end_a_reply() -> None:
    generator = tiny_generator()
    steer(generator, *generator.tokenizer.words("\n\nyes\nno"))
    assert generator.generate(CAT, GenerationOptions(num_words=6), 0) == ["yes"]
    steer(generator, *generator.tokenizer.words("a\nb"))
    assert generator.generate(CAT, GenerationOptions(num_words=3, stop_at_newline=False), 0) == ["a\nb"]


def test_a_reply_ends_at_a_stop_word() -> None:
    generator = tiny_generator(stop_words="()")
    for text in ("a dog(a cat)", "a dog)"):
        steer(generator, *generator.tokenizer.words(text))
        assert generator.generate(CAT, GenerationOptions(num_words=9), 0) == ["a dog"]
    plain = tiny_generator()
    steer(plain, *plain.tokenizer.words("a dog)"))
    assert plain.generate(CAT, GenerationOptions(num_words=6), 0) == ["a dog)"]


def test_minimum_words_and_no_images_keep_the_image_away() -> None:
    generator = tiny_generator()
    wants_images = GenerationOptions(num_words=6, img_logit_bias=1e4, max_num_images=9)
    assert len(generator.generate(CAT, wants_images, 0)) == 6
    late = generator.decode([CAT], replace(wants_images, min_word_tokens=4), [0])[0]
    assert [place for place, token in enumerate(late.ids) if token == generator.img_ids[0]] == [4, 8]
    assert not any(
        isinstance(part, ImageOutput) for part in generator.generate(CAT, replace(wants_images, max_num_images=0), 0)
    )


@pytest.mark.parametrize("ending", ["</s>", "\n"])
def test_a_forced_image_comes_before_the_reply_is_over(ending: str) -> None:
    """Where the reply ends before its place, the image stands at the end."""
    generator = tiny_generator()
    words, end = generator.tokenizer.words("a dog"), generator.tokenizer.eos_id
    steer(generator, *words, end if ending == "</s>" else generator.tokenizer.words("\n")[0])
    options = GenerationOptions(num_words=20, min_word_tokens=15, force_image=True)
    text, image = generator.generate(CAT, options, 0)
    assert text == "a dog" and isinstance(image, ImageOutput)
    steer(generator, *words, *generator.tokenizer.words(" and a cat in the garden"))
    text, image = generator.generate(CAT, replace(options, num_words=9, min_word_tokens=8), 0)
    assert len(generator.tokenizer.words(text)) == 8 and isinstance(image, ImageOutput)


def test_a_bias_multiplies_the_odds_whatever_the_sign_of_the_logit() -> None:
    """The originals' factors make a negative logit positive (GILL), or push it the wrong way (FROMAGe)."""
    generator = tiny_generator()
    prompts = [[Segment(text=text)] for text in ("a", "some dogs", "the old tree looks at", "x y z")]
    logits = generator.next_logits(prompts)
    first = generator.img_ids[0]
    assert {bool(value > 0) for value in logits[:, first]} == {True, False}
    for row, prompt in zip(logits, prompts, strict=True):
        needed = float(row[:first].max() - row[first])
        for bias, is_image in ((needed + 1e-6, True), (needed - 1e-6, False)):
            said = generator.decode([prompt], GenerationOptions(num_words=1, img_logit_bias=bias), [0])[0]
            assert (said.ids[0] == first) is is_image


def test_a_stream_says_what_generate_says() -> None:
    generator = tiny_generator(index=FakeIndex(9), fetcher=FakeFetcher(), drawer=FakeDrawer())
    said = [
        *generator.tokenizer.words("é one"),
        "image",
        *generator.tokenizer.words(" twö"),
        "image",
        *generator.tokenizer.words("!"),
    ]
    options = GenerationOptions(num_words=len(said), max_num_images=2)
    steer(generator, *said)
    events = list(generator.stream(CAT, options, seed=5))
    steer(generator, *said)
    reply = generator.generate(CAT, options, seed=5)
    texts, images = [""], []
    for event in events:
        if isinstance(event, TextDelta):
            assert event.text and "\ufffd" not in event.text
            texts[-1] += event.text
        elif isinstance(event, ImageDecided):
            assert not event.output.generated and not event.output.retrieved
            assert event.output.conditioning is not None
        else:
            assert isinstance(event, ImageReady)
            images.append(event.output)
            texts.append("")
    assert [text for text in texts if text] == [part for part in reply if isinstance(part, str)]
    wanted = [part for part in reply if isinstance(part, ImageOutput)]
    assert [[p.source for p in (*o.generated, *o.retrieved)] for o in images] == [
        [p.source for p in (*o.generated, *o.retrieved)] for o in wanted
    ]


# Prompts


def test_every_class_of_pictures_is_read(tmp_path: Path) -> None:
    """The original wants the exact type `PIL.Image.Image`, which no opened file has."""
    generator = tiny_generator()
    path = tmp_path / "a.png"
    picture = random_pictures(3)[2]
    picture.save(path)
    opened = Image.open(path)
    assert type(opened) is not Image.Image
    same = [
        generator.next_logits([[part, *CAT]])
        for part in (Segment(image=picture), Segment(image=opened), Segment(image_path=path))
    ]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    assert torch.isfinite(generator.next_logits([[Segment(image=picture.convert("L")), *CAT]])).all()
    with pytest.raises(DataError, match=r"prompt: .*missing.png"):
        generator.next_logits([[Segment(image_path=tmp_path / "missing.png")]])


def test_an_empty_text_does_not_take_the_beginning_of_sequence() -> None:
    """In the original's demo an empty message swallows it."""
    generator = tiny_generator()
    picture = Segment(image=plain(1))
    laid = generator.layout.read([[Segment(text=""), picture, *CAT], [picture, *CAT], [picture]])
    assert laid.ids[0][2:] == laid.ids[1][2:] == (generator.tokenizer.bos_id, *generator.tokenizer.words("a cat"))
    assert laid.ids[2][2:] == (generator.tokenizer.bos_id,), "a picture alone is captioned as in training"


def test_prompts_are_laid_out_as_in_training() -> None:
    generator = tiny_generator(image_brackets=("<(", ")>"), input_prefix="see:")
    opening, closing, prefix = (tuple(generator.tokenizer.words(text)) for text in ("<(", ")>", "see:"))
    vocabulary, bos = generator.model.vocabulary, generator.tokenizer.bos_id
    laid = generator.layout.read([[Segment(image=plain(1)), *CAT, Segment(text=" x")], [Segment(image=plain(2))]])
    visual = tuple(range(vocabulary.size, vocabulary.size + 4))
    assert laid.ids[0] == (*opening, *visual[:2], *closing, *prefix, bos, *generator.tokenizer.words("a cat x"))
    assert laid.ids[1] == (*opening, *visual[2:], *closing, *prefix, bos)
    repeated = generator.layout.read([[*CAT, *CAT]], repeats_bos=True)
    assert repeated.ids[0].count(bos) == 2


def test_a_picture_is_encoded_once_over_all_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original encodes it again in every turn."""
    generator = tiny_generator()
    counts: list[int] = []
    features = generator.model.image_features

    def count(images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        return features(images)

    monkeypatch.setattr(generator.model, "image_features", count)
    turn = [Segment(image=plain(1)), *CAT, Segment(image=plain(2)), Segment(image=plain(1))]
    for _ in range(3):
        generator.generate(turn, GenerationOptions(num_words=2, max_num_images=0), 0)
        turn += [Segment(text=" more"), Segment(image=plain(2))]
    assert counts == [2]


def test_what_cannot_be_served_is_said_before_anything_is_read() -> None:
    generator = tiny_generator()
    long = [Segment(text="x" * 240)]
    with pytest.raises(
        GenerationError, match=r"the prompt has 241 tokens and up to 23 may follow, .* reads 256; shorten"
    ):
        generator.generate(long, GenerationOptions(num_words=20), 0)
    assert generator.generate(long, GenerationOptions(num_words=12), 0)
    with pytest.raises(GenerationError, match="at least one text or picture"):
        generator.generate([], FORCED, 0)
    with pytest.raises(ShapeError, match="got 1 for 2 prompts"):
        generator.generate_batch([CAT, CAT], FORCED, [0])
    with pytest.raises(GenerationError, match=r"write \[IMG0\]\[IMG1\]\[IMG2\]\[IMG3\] into it"):
        generator.generate(CAT, GenerationOptions(num_words=0), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_words": -1}, "num_words must be 0 or more, got -1"),
        ({"top_p": 0.0, "temperature": 1.0}, "top_p must be above 0"),
        ({"top_p": 0.9}, "set a temperature"),
        ({"force_image": True, "num_words": 4, "min_word_tokens": 4}, "force_image needs"),
        ({"force_image": True, "max_num_images": 0}, "force_image needs"),
        ({"num_candidates": 0}, "num_candidates must be at least 1"),
    ],
)
def test_options_that_cannot_work_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        GenerationOptions(**settings)
