"""Conversations and examples as prompts: pieces in reading order, as `GillGenerator` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from gill.errors import ConfigError, GenerationError
from gill.models.gill.encoding import GillTokenizer
from gill.types import Segment

_SLOT = "\ufffc"  # Unicode's placeholder for an object in a text
_SAID = "hello"  # a reply, to see what a template writes after it


@dataclass(frozen=True)
class Turn:
    """What the user or, if `is_reply`, the model said: texts and pictures in reading order."""

    parts: tuple[Segment, ...]
    is_reply: bool = False


def dialogue_prompt(turns: Sequence[Turn]) -> list[Segment]:
    """A conversation as the originals tell it to a language model that was not tuned on chats: "Q: ...\\nA: ...".

        dialogue_prompt([Turn((Segment(image=cake), Segment(text="What is it?")))])  # cake, "Q: What is it?\\nA:"

    The pictures of a turn come before its words. A question that has no answer keeps its line.
    """
    prompt: list[Segment] = []
    for before, turn in zip((None, *turns), turns, strict=False):
        if before is not None and not before.is_reply and not turn.is_reply:
            prompt.append(Segment(text="\n"))
        said = " ".join(part.text.strip() for part in turn.parts if part.text)
        prompt += [part for part in turn.parts if not part.is_text]
        prompt.append(Segment(text=f" {said}\n" if turn.is_reply else f"Q: {said}\nA:"))
    return prompt


def chat_prompt(turns: Sequence[Turn], tokenizer: GillTokenizer) -> list[Segment]:
    """A conversation in the template of a chat-tuned language model, open for its reply.

    Neighbouring turns of one side, where one had no answer, are one turn of two lines: many templates want turns of the
    two sides by turns.

        chat_prompt([Turn((Segment(text="What is on "), Segment(image=photo), Segment(text="?")))], generator.tokenizer)

    Raises:
        ConfigError: the language model's tokenizer has no chat template.
        GenerationError: a text holds the character U+FFFC, which stands for pictures here.
    """
    inner = tokenizer.tokenizer
    if inner.chat_template is None:
        raise ConfigError("this language model has no chat template; use dialogue_prompt, or one tuned on chats")
    messages = [
        {"role": role, "content": "\n".join("".join(map(_written, turn.parts)) for turn in same)}
        for role, same in groupby(turns, _role)
    ]
    text = inner.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if inner.bos_token:
        text = text.removeprefix(inner.bos_token)  # the layout of every prompt has one
    pictures = [part for turn in turns for part in turn.parts if not part.is_text]
    pieces = text.split(_SLOT)
    if len(pieces) != len(pictures) + 1:
        raise GenerationError(f"{len(pictures)} pictures were said, the chat template kept {len(pieces) - 1} of them")
    prompt = [Segment(text=pieces[0])]
    for picture, piece in zip(pictures, pieces[1:], strict=True):
        prompt += [picture, Segment(text=piece)]
    return [part for part in prompt if part.text != ""]


def ends_turns_by_newline(tokenizer: GillTokenizer) -> bool:
    """Whether in the chat template a new line ends what the model says, and not a token of its own.

    Raises:
        ConfigError: the language model's tokenizer has no chat template.
    """
    question = Turn((Segment(text="a"),))
    said = [question, Turn((Segment(text=_SAID),), is_reply=True), question]
    text = "".join(part.text or "" for part in chat_prompt(said, tokenizer))
    return text.partition(_SAID)[2].startswith("\n")


def few_shot_prompt(
    examples: Sequence[tuple[Sequence[Segment], str | Segment]], question: Sequence[Segment]
) -> list[Segment]:
    """A question after answered ones of the same form, for learning in context.

    few_shot_prompt([([Segment(image=cat)], "a cat"), ([Segment(image=dog)], "a dog")], [Segment(image=bird)])

    An answer in words ends its line. One that is a `Segment`, such as the picture that a text asked for, stands as it
    is.
    """
    shown = [part for asked, answer in examples for part in (*asked, _answered(answer))]
    return [*shown, *question]


def _answered(answer: str | Segment) -> Segment:
    return Segment(text=f" {answer.strip()}\n") if isinstance(answer, str) else answer


def _role(turn: Turn) -> str:
    return "assistant" if turn.is_reply else "user"


def _written(part: Segment) -> str:
    if part.text is None:
        return _SLOT
    if _SLOT in part.text:
        raise GenerationError("a text holds the character U+FFFC, which stands for pictures; leave it out")
    return part.text
