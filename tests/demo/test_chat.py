"""Conversations of the demo: how they grow, how they read, what is kept. No page and no model."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demo.chat import (
    FORMS,
    MAX_CHARACTERS,
    Conversation,
    Message,
    Part,
    Settings,
    image_parts,
    keep_picture,
    open_upload,
    prompt_of,
    reply,
)
from demo.keeping import RateLimit, save
from demo.openings import flatland_openings
from demo.page import Callbacks, Offer
from gill.errors import DataError, GenerationError
from gill.flatland import read_caption, read_picture
from gill.models.gill import GillTokenizer
from gill.types import GenerationEvent, GenerationOptions, ImageDecided, ImageOutput, ImageReady, Picture, TextDelta
from tests.models.gill.tiny_gill import tiny_generator

FETCHED = tuple(
    Picture(Image.new("RGB", (8, 8), (number, 0, 0)), 0.9 - number / 10, f"{number}.png") for number in (1, 2)
)
NO_TOKENIZER: GillTokenizer = None  # type: ignore[assignment]  # only chat templates ask for one
DRAWN = (Picture(Image.new("RGB", (8, 8), "blue"), None, "seed 17"),)


class FakeGenerator:
    """Says what it was told, and remembers what it was asked."""

    tokenizer: Any = None

    def __init__(self, *events: GenerationEvent) -> None:
        self.events, self.asked = events, list[tuple[list[Any], GenerationOptions, int]]()

    def stream(
        self, prompt: Any, options: GenerationOptions, seed: int, progress: Any = None
    ) -> Iterator[GenerationEvent]:
        """The events."""
        self.asked.append((prompt, options, seed))
        yield from self.events


def remarks(parts: Sequence[Part]) -> list[str]:
    return [part.remark for part in parts]


def texts(conversation: Conversation, form: str) -> list[str | None]:
    return [piece.text for piece in prompt_of(conversation, form, tokenizer=None)]  # type: ignore[arg-type]


def test_a_reply_grows_event_by_event(tmp_path: Path) -> None:
    decided = ImageOutput(prefers_generated=False, probability_generated=0.25)
    ready = ImageOutput(DRAWN, FETCHED[:1], False, 0.25, notes=("links that failed: 1",))
    told = (TextDelta("a "), TextDelta("cat"), ImageDecided(decided), ImageReady(ready), TextDelta("more"))
    asked = Conversation().asked("  show me  ", [])
    steps = list(reply(asked, FakeGenerator(*told), Settings(seed=17), tmp_path))
    assert [step.messages[0] for step in steps] == [Message((Part("show me"),))] * 5
    said = [step.messages[1].parts for step in steps]
    assert [parts[0].text for parts in said] == ["a ", "a cat", "a cat", "a cat", "a cat"]
    assert [bool(step.note) for step in steps] == [False, False, True, False, False]
    assert remarks(said[-1])[1:4] == [
        "retrieved, score 0.80, 1.png",
        "drawing rather than retrieving: probability 0.25",
        "links that failed: 1",
    ]
    assert said[-1][-1].text == "more"
    with Image.open(said[-1][1].picture) as kept:  # type: ignore[arg-type]
        assert kept.getpixel((0, 0)) == (1, 0, 0)


def test_a_reply_of_flatlands_ends_with_its_last_picture(tmp_path: Path) -> None:
    told = (TextDelta("a "), ImageReady(ImageOutput(DRAWN)), TextDelta("more"), ImageReady(ImageOutput(DRAWN)))
    asked = Conversation().asked("x", [])
    for settings, count in ((Settings(form=FORMS[0]), 2), (Settings(form=FORMS[0], num_images=2), 4), (Settings(), 4)):
        *_, last = reply(asked, FakeGenerator(*told), settings, tmp_path)
        assert len(last.messages[1].parts) == count


def test_an_image_is_shown_as_the_settings_say(tmp_path: Path) -> None:
    fetched = ["retrieved, score 0.80, 1.png", "retrieved, score 0.70, 2.png"]
    for prefers, kind, wanted in (
        (False, "as decided", fetched),
        (True, "as decided", ["generated, seed 17"]),
        (None, "as decided", ["generated, seed 17"]),
        (True, "retrieved", fetched),
        (False, "generated", ["generated, seed 17"]),
        (True, "both", [*fetched, "generated, seed 17"]),
    ):
        output = ImageOutput(DRAWN, FETCHED, prefers)
        assert remarks(image_parts(output, Settings(kind=kind), tmp_path)) == wanted
    only = ImageOutput(DRAWN, (), True, 1.0)
    assert remarks(image_parts(only, Settings(), tmp_path)) == ["generated, seed 17"], "nothing was decided"
    assert remarks(image_parts(ImageOutput(), Settings(), tmp_path)) == [
        "an image belongs here, and nothing could be retrieved or drawn"
    ]


def test_sliders_become_options() -> None:
    options = Settings(2.5, 9, 0.7, 3.0, 12, 3, 2, "retrieved").options(NO_TOKENIZER)
    assert (options.img_logit_bias, options.num_words, options.temperature, options.top_p) == (2.5, 9, 0.7, 0.95)
    assert (options.guidance_scale, options.num_inference_steps) == (3.0, 12)
    assert (options.max_num_images, options.num_retrieved, options.num_generated) == (3, 2, 0)
    plain = Settings().options(NO_TOKENIZER)
    assert plain.stop_at_newline
    assert (plain.top_p, plain.guidance_scale, plain.num_inference_steps) == (1.0, None, None)
    assert (plain.num_retrieved, plain.num_generated) == (1, 1)


def test_an_empty_reply_is_said_to_be_empty(tmp_path: Path) -> None:
    (step,) = reply(Conversation().asked("x", []), FakeGenerator(), Settings(), tmp_path)
    remark = "the model ended its reply at once; reset, or ask in other words"
    assert step.messages[-1] == Message((Part(remark=remark),), is_reply=True)


def test_a_reply_in_a_chat_template_may_have_lines() -> None:
    tokenizer = tiny_generator().tokenizer
    for ending, stops in (("</s>", False), ("\n", True)):
        tokenizer.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}" + ending + "{% endfor %}"
        assert Settings(form="chat template").options(tokenizer).stop_at_newline is stops


def test_a_conversation_is_read_in_the_form_asked_for(tmp_path: Path) -> None:
    photo = keep_picture(DRAWN[0].image, tmp_path)
    talk = Conversation().asked("", [photo]).answered([Part(" a ball."), Part(remark="not read")])
    talk = talk.asked("where is it?", []).answered([Part(" the beach")]).asked("a red ball.", [])
    talk = talk.answered([Part(picture=photo, remark="generated, seed 0")]).asked("is it big?", [])
    documents, everything, written, _ = FORMS
    assert texts(talk.undone().undone(), documents) == [None, " a ball.", "\nQ: where is it?\nA:", " the beach"]
    assert texts(talk, documents) == ["a red ball.", None, "\nQ: is it big?\nA:"]
    assert texts(talk, written) == [
        None,
        " a ball.",
        " where is it?",
        " the beach",
        " a red ball.",
        None,
        " is it big?",
    ]
    first = ["Q: \nA:", " a ball.\n", "Q: where is it?\nA:"]
    assert [text for text in texts(talk, everything) if text is not None][:3] == first


def test_a_document_of_flatland_ends_with_a_description_or_an_answer(tmp_path: Path) -> None:
    """What follows them is a text of its own; a story goes on, after pictures and after words."""
    photo, other = (keep_picture(Image.new("RGB", (8, 8), name), tmp_path) for name in ("red", "blue"))
    described = Conversation().asked("", [photo]).answered([Part(" a ball.")])
    assert texts(described.asked("a cone.", []), FORMS[0]) == ["a cone."]
    assert texts(described.asked("is it big?", []), FORMS[0]) == [None, " a ball.", "\nQ: is it big?\nA:"]
    assert texts(described.asked("what is it?", [other]), FORMS[0]) == [None, "\nQ: what is it?\nA:"]
    story = Conversation().asked("mia has a ball.", [photo]).answered([Part(" they play.")])
    assert texts(story.asked("at last.", []), FORMS[0]) == [None, " mia has a ball.", " they play.", " at last."]
    shown = Conversation().asked("a ball.", []).answered([Part(picture=photo, remark="retrieved")])
    assert texts(shown.asked("a cone.", []), FORMS[0]) == ["a ball.", None, " a cone."]


def test_undo_takes_back_a_question_with_its_answer() -> None:
    one = Conversation().asked("one", []).answered([Part("1")])
    two = one.asked("two", [])
    assert two.undone() == two.answered([Part("2")]).undone() == one
    assert one.undone() == Conversation().undone() == Conversation()


def test_a_message_is_refused_when_it_is_empty_or_too_much(tmp_path: Path) -> None:
    with pytest.raises(GenerationError, match="needs words or a picture"):
        Conversation().asked("  ", [])
    with pytest.raises(GenerationError, match="this one has 2001 and 0"):
        Conversation().asked("x" * (MAX_CHARACTERS + 1), [])
    with pytest.raises(GenerationError, match="this one has 1 and 5"):
        Conversation().asked("x", [tmp_path] * 5)


def test_an_upload_is_checked_and_made_small(tmp_path: Path) -> None:
    Image.new("RGBA", (3000, 1500), "red").save(tmp_path / "a.png")
    with Image.open(open_upload(tmp_path / "a.png", tmp_path)) as kept:
        assert (kept.size, kept.mode) == ((1024, 512), "RGB")
    (tmp_path / "b.png").write_bytes(b"<svg/>")
    Image.new("RGB", (8, 8)).save(tmp_path / "c.png", format="EPS")  # which Pillow gives to another program
    for name in ("b.png", "c.png"):
        with pytest.raises(DataError, match="no picture"):
            open_upload(tmp_path / name, tmp_path)


# The page's callbacks


def callbacks(tmp_path: Path, generator: Any) -> Callbacks:
    return Callbacks(generator, Offer("m", "", tmp_path, Settings(seed=3), True, True), RateLimit(9, 60))


def say(calls: Callbacks, *values: Any) -> list[Any]:
    message = {"text": "x", "files": []}
    return list(calls.answer(message, Conversation(), *values, caller="a", progress=lambda *_, **__: None))  # type: ignore[arg-type]


def test_an_emptied_field_says_what_it_began_with(tmp_path: Path) -> None:
    generator = FakeGenerator(TextDelta("y"))
    say(callbacks(tmp_path, generator), *astuple(replace(Settings(), num_words=7, seed=None)))  # type: ignore[arg-type]
    (_, options, seed), *_ = generator.asked
    assert (options.num_words, seed) == (7, 3)


def test_a_question_is_not_lost_with_its_reply(tmp_path: Path) -> None:
    class Broken(FakeGenerator):
        def stream(self, *_: Any, **__: Any) -> Iterator[GenerationEvent]:
            raise RuntimeError("out of memory")

    message, seen = {"text": "x", "files": []}, []
    calls = callbacks(tmp_path, Broken())
    with pytest.raises(RuntimeError, match="out of memory"):
        for step in calls.answer(message, Conversation(), *astuple(Settings()), caller="a", progress=None):  # type: ignore[arg-type]
            seen.append(step)
    assert seen[-1] == ([], Conversation(), message)


# What is kept


def test_a_saved_conversation_names_its_pictures(tmp_path: Path) -> None:
    photo = keep_picture(DRAWN[0].image, tmp_path)
    talk = Conversation().asked("look", [photo]).answered([Part("ok"), Part(picture=photo, remark="retrieved, x.png")])
    with zipfile.ZipFile(save(talk, Settings(seed=5), "mine", tmp_path)) as packed:
        told = json.loads(packed.read("conversation.json"))
        assert packed.namelist() == ["conversation.json", "pictures/00.png"]
        assert packed.read("pictures/00.png") == photo.read_bytes()
    assert (told["model"], told["settings"]["seed"]) == ("mine", 5)
    assert told["messages"] == [
        {"role": "user", "parts": [{"picture": "pictures/00.png", "remark": ""}, {"text": "look"}]},
        {"role": "model", "parts": [{"text": "ok"}, {"picture": "pictures/00.png", "remark": "retrieved, x.png"}]},
    ]
    assert str(tmp_path) not in json.dumps(told)
    with pytest.raises(GenerationError, match="nothing to save"):
        save(Conversation(), Settings(), "mine", tmp_path)


def test_each_caller_has_a_rate_of_their_own() -> None:
    now = [0.0]
    limit = RateLimit(2, 60, clock=lambda: now[0])
    for caller in ("a", "a", "b"):
        limit.check(caller)
    now[0] = 20.0
    with pytest.raises(GenerationError, match="at most 2 messages in 60 s; wait another 40 s"):
        limit.check("a")
    limit.check("b")
    now[0] = 60.0
    limit.check("a")


def test_flatlands_openings_are_of_its_world(tmp_path: Path) -> None:
    openings = flatland_openings(tmp_path)
    for text, pictures in openings:
        assert text.endswith("?") or not text or read_caption(text) is not None
        for path in pictures:
            with Image.open(path) as picture:
                assert read_picture(picture) is not None
    assert sum(bool(pictures) for _, pictures in openings) == 2
