"""A conversation as a value: how it grows, how the model reads it, how it is shown and saved. Knows no web page.

Pictures are files of one folder, written once when they come; a conversation names them and copies none.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from gill.data import open_image
from gill.errors import GenerationError
from gill.models.gill import GillTokenizer, Turn, chat_prompt, dialogue_prompt, ends_turns_by_newline
from gill.retrieval import FORMATS
from gill.types import (
    GenerationEvent,
    GenerationOptions,
    ImageDecided,
    ImageOutput,
    Picture,
    Segment,
    TextDelta,
)

MAX_PICTURES, MAX_CHARACTERS = 4, 2000  # of one message
_LARGEST_SIDE = 1024  # pixels kept of an upload; vision towers read a few hundred
_NUCLEUS = 0.95  # as in the original's demo, whenever words are sampled

# What is shown of an image: what the decision says, one kind alone, or both.
KINDS = ("as decided", "retrieved", "generated", "both")
# How the language model reads a conversation.
DOCUMENTS, DIALOGUE, AS_WRITTEN = "as Flatland's documents", "everything as Q: and A:", "as written"
CHAT_TEMPLATE = "chat template"
FORMS = (DOCUMENTS, DIALOGUE, AS_WRITTEN, CHAT_TEMPLATE)

Progress = Callable[[int, int], None]


class Streamer(Protocol):
    """What a conversation needs of a `GillGenerator`."""

    tokenizer: GillTokenizer

    def stream(
        self, prompt: Sequence[Segment], options: GenerationOptions, seed: int, progress: Progress | None = None
    ) -> Iterator[GenerationEvent]:
        """A reply as it comes."""
        ...


@dataclass(frozen=True)
class Part:
    """A piece of a message: a text, or a picture with a remark; a remark alone is not read by the model."""

    text: str = ""
    picture: Path | None = None
    remark: str = ""


@dataclass(frozen=True)
class Message:
    """What the user or, if `is_reply`, the model said."""

    parts: tuple[Part, ...]
    is_reply: bool = False


@dataclass(frozen=True)
class Conversation:
    """Messages in order; `note` says what is being waited for and is no part of them."""

    messages: tuple[Message, ...] = ()
    note: str = ""

    def asked(self, text: str, pictures: Sequence[Path]) -> Conversation:
        """With one more message of the user.

        Raises:
            GenerationError: nothing was said, or more than one message may hold.
        """
        if not text.strip() and not pictures:
            raise GenerationError("a message needs words or a picture; write something or add one")
        if len(text) > MAX_CHARACTERS or len(pictures) > MAX_PICTURES:
            raise GenerationError(
                f"a message may hold {MAX_CHARACTERS} characters and {MAX_PICTURES} pictures, this one has {len(text)} "
                f"and {len(pictures)}; send it in parts"
            )
        parts = [Part(picture=picture) for picture in pictures]
        parts += [Part(text.strip())] if text.strip() else []
        return Conversation((*self.messages, Message(tuple(parts))))

    def answered(self, parts: Sequence[Part], note: str = "") -> Conversation:
        """With this reply to the last message of the user."""
        said = self.messages[:-1] if self.messages[-1].is_reply else self.messages
        return Conversation((*said, Message(tuple(parts), is_reply=True)), note)

    def undone(self) -> Conversation:
        """Without the last message of the user and what was answered; an empty one stays as it is."""
        asked = [place for place, message in enumerate(self.messages) if not message.is_reply]
        return Conversation(self.messages[: asked[-1]] if asked else ())


@dataclass(frozen=True)
class Settings:
    """What the sliders say, in their order on the page.

    Attributes:
        image_frequency: added to the logit of an image.
        num_words: at most, an image counting as one. temperature: 0 takes the likeliest word.
        guidance_scale, num_inference_steps: of the diffusion model; 0 takes its own defaults.
        num_images: of one reply at most; 0 keeps it to words.
        num_pictures: shown of each kind for an image. kind: one of `KINDS`. form: one of `FORMS`.
        seed: the same seed gives the same reply.
    """

    image_frequency: float = 0.0
    num_words: int = 32
    temperature: float = 0.0
    guidance_scale: float = 0.0
    num_inference_steps: int = 0
    num_images: int = 1
    num_pictures: int = 1
    kind: str = KINDS[0]
    form: str = DIALOGUE
    seed: int = 0

    def options(self, tokenizer: GillTokenizer) -> GenerationOptions:
        """As the generator takes them. A reply is one line, but in a chat template that ends it by a token.

        Raises:
            GenerationError: a value outside its range. ConfigError: as `prompt_of`.
        """
        return GenerationOptions(
            stop_at_newline=self.form != CHAT_TEMPLATE or ends_turns_by_newline(tokenizer),
            num_words=int(self.num_words),
            temperature=self.temperature,
            top_p=_NUCLEUS if self.temperature > 0 else 1.0,
            img_logit_bias=self.image_frequency,
            max_num_images=int(self.num_images),
            num_retrieved=0 if self.kind == "generated" else int(self.num_pictures),
            num_generated=0 if self.kind == "retrieved" else int(self.num_pictures),
            guidance_scale=self.guidance_scale or None,
            num_inference_steps=int(self.num_inference_steps) or None,
        )


def reply(
    conversation: Conversation, generator: Streamer, settings: Settings, folder: Path, progress: Progress | None = None
) -> Iterator[Conversation]:
    """The conversation as the reply to its last message grows; pictures are written to `folder`.

    In Flatland's documents a reply ends with the last picture it may have: nothing taught that model to go on.

    Raises:
        GenerationError, DataError, ConfigError: as `GillGenerator.stream` and `prompt_of`.
    """
    parts: list[Part] = []
    num_images = 0
    prompt = prompt_of(conversation, settings.form, generator.tokenizer)
    options = settings.options(generator.tokenizer)
    for event in generator.stream(prompt, options, int(settings.seed), progress):
        if isinstance(event, TextDelta):
            parts = (
                [*parts[:-1], Part(parts[-1].text + event.text)] if _ends_in_text(parts) else [*parts, Part(event.text)]
            )
            yield conversation.answered(parts)
        elif isinstance(event, ImageDecided):
            yield conversation.answered(parts, note="finding a picture ...")
        else:
            parts = [*parts, *image_parts(event.output, settings, folder)]
            num_images += 1
            yield conversation.answered(parts)
            if settings.form == DOCUMENTS and num_images >= settings.num_images:
                return
    if not any(part.text.strip() or part.picture or part.remark for part in parts):
        yield conversation.answered([Part(remark="the model ended its reply at once; reset, or ask in other words")])


def image_parts(output: ImageOutput, settings: Settings, folder: Path) -> list[Part]:
    """The pictures of an image that are shown, each with where it comes from, and what the reader should know."""
    shown = {
        "retrieved": output.retrieved,
        "generated": output.generated,
        "both": (*output.retrieved, *output.generated),
        "as decided": output.generated if output.shown in output.generated else output.retrieved,
    }[settings.kind]
    parts = [
        Part(picture=keep_picture(picture.image, folder), remark=_origin(picture, picture in output.retrieved))
        for picture in shown
    ]
    if not parts:
        parts = [Part(remark="an image belongs here, and nothing could be retrieved or drawn")]
    probability = output.probability_generated
    if settings.kind == KINDS[0] and probability is not None and 0 < probability < 1:  # one of two that can be
        parts.append(Part(remark=f"drawing rather than retrieving: probability {probability:.2f}"))
    return [*parts, *(Part(remark=note) for note in output.notes)]


def prompt_of(conversation: Conversation, form: str, tokenizer: GillTokenizer) -> list[Segment]:
    """A conversation as the language model reads it, open for its reply; `form` is one of `FORMS`.

    Raises:
        ConfigError: `CHAT_TEMPLATE` for a language model without one.
    """
    turns = [Turn(_segments(message), message.is_reply) for message in conversation.messages]
    turns = [turn for turn in turns if turn.parts]
    if form == CHAT_TEMPLATE:
        return chat_prompt(turns, tokenizer)
    if form == DIALOGUE:
        return dialogue_prompt(turns)
    if form == DOCUMENTS:
        return _running_text(_last_document(turns), marks_questions=True)
    return _running_text(turns, marks_questions=False)


def open_upload(path: Path, folder: Path) -> Path:
    """A picture of the user, checked and kept in `folder`.

    Raises:
        DataError: no picture, a damaged or an enormous one.
    """
    picture = open_image(path, "upload", formats=FORMATS)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return keep_picture(picture, folder)


def keep_picture(picture: Image.Image, folder: Path) -> Path:
    """Writes a picture under a name that cannot be guessed."""
    path = folder / f"{uuid.uuid4().hex}.png"
    picture.save(path)
    return path


def _ends_in_text(parts: Sequence[Part]) -> bool:
    return bool(parts) and bool(parts[-1].text)


def _segments(message: Message) -> tuple[Segment, ...]:
    pieces = [
        Segment(text=part.text) if part.picture is None else Segment(image_path=part.picture)
        for part in message.parts
        if part.text or part.picture
    ]
    return tuple(pieces)


def _last_document(turns: Sequence[Turn]) -> Sequence[Turn]:
    """The turns since a picture was described, or a question answered, and something other than a question followed.

    Flatland's documents are a caption, a story, or a picture with questions: what describes or answers ends one, but
    for further questions.
    """
    begins = [
        place
        for place in range(2, len(turns))
        if _is_told(*turns[place - 2 : place]) and not (_is_question(turns[place]) and _is_words(turns[place]))
    ]
    return turns[begins[-1] :] if begins else turns


def _is_told(asked: Turn, reply: Turn) -> bool:
    """Whether these turns are a picture alone, or a question, and words for it."""
    is_asked = not asked.is_reply and (_is_question(asked) or not any(part.is_text for part in asked.parts))
    return is_asked and reply.is_reply and _is_words(reply)


def _is_question(turn: Turn) -> bool:
    return any((part.text or "").rstrip().endswith("?") for part in turn.parts)


def _is_words(turn: Turn) -> bool:
    return all(part.is_text for part in turn.parts)


def _running_text(turns: Sequence[Turn], marks_questions: bool) -> list[Segment]:
    """One text with pictures in it, as documents are; a question and its answer have lines of their own."""
    prompt: list[Segment] = []
    is_answer = False
    for turn in turns:
        before = "\n" if is_answer and not turn.is_reply else " "
        is_answer = is_answer and turn.is_reply
        for part in turn.parts:
            if part.text is None:
                prompt.append(part)
                continue
            text = part.text.strip()
            is_question = marks_questions and not turn.is_reply and text.endswith("?")
            line = f"\nQ: {text}\nA:" if is_question else f"{before}{text}"
            prompt.append(Segment(text=line if prompt else line.lstrip()))
            is_answer = is_answer or is_question
            before = " "
    return prompt


def _origin(picture: Picture, is_retrieved: bool) -> str:
    score = "" if picture.score is None else f", score {picture.score:.2f}"
    return f"retrieved{score}, {picture.source}" if is_retrieved else f"generated, {picture.source}{score}"
