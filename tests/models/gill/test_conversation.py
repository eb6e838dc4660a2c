"""Conversations, chat templates and examples as prompts."""

import pytest

from gill.errors import ConfigError, GenerationError
from gill.models.gill import Turn, chat_prompt, dialogue_prompt, ends_turns_by_newline, few_shot_prompt
from gill.types import GenerationOptions, Segment
from tests.models.gill.fakes import plain
from tests.models.gill.tiny_gill import tiny_generator

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
PHOTO = Segment(image=plain(1))
TALK = [
    Turn((PHOTO, Segment(text="What is this?"))),
    Turn((Segment(text="a cat"),), is_reply=True),
    Turn((Segment(text="And "), PHOTO, Segment(text="this?"))),
]


def shown(prompt: list[Segment]) -> list[str | None]:
    return [part.text for part in prompt]


def test_a_dialogue_reads_as_the_originals_write_it() -> None:
    wanted = [None, "Q: What is this?\nA:", " a cat\n", None, "Q: And this?\nA:"]
    assert shown(dialogue_prompt(TALK)) == wanted


def test_a_question_without_an_answer_is_no_fault() -> None:
    """A reply of pictures that could not be shown, or an empty one, is not read; templates want sides by turns."""
    talk = [Turn((Segment(text="a"),)), Turn((PHOTO, Segment(text="b"))), *TALK[1:]]
    assert shown(dialogue_prompt(talk))[:4] == ["Q: a\nA:", "\n", None, "Q: b\nA:"]
    generator = tiny_generator()
    generator.tokenizer.tokenizer.chat_template = TEMPLATE
    assert shown(chat_prompt(talk, generator.tokenizer))[:3] == ["[user] a\n", None, "b [assistant] a cat [user] And "]


@pytest.mark.parametrize(("ending", "is_newline"), [(" ", False), ("</s>", False), ("\n", True)])
def test_a_template_says_how_replies_end(ending: str, is_newline: bool) -> None:
    generator = tiny_generator()
    generator.tokenizer.tokenizer.chat_template = TEMPLATE.replace("} {% endfor", "}" + ending + "{% endfor")
    assert ends_turns_by_newline(generator.tokenizer) is is_newline


def test_a_new_line_may_begin_the_next_turn() -> None:
    generator = tiny_generator()
    generator.tokenizer.tokenizer.chat_template = (
        "{% for m in messages %}{{ '\\nQ: ' + m['content'] + '\\nA:' if m['role'] == 'user' else ' ' + m['content'] }}"
        "{% endfor %}"
    )
    assert ends_turns_by_newline(generator.tokenizer)


def test_a_chat_follows_the_template_with_its_pictures_in_place() -> None:
    generator = tiny_generator()
    generator.tokenizer.tokenizer.chat_template = TEMPLATE
    prompt = chat_prompt(TALK, generator.tokenizer)
    assert shown(prompt) == ["[user] ", None, "What is this? [assistant] a cat [user] And ", None, "this? [assistant]"]
    ids = generator.layout.read([prompt]).ids[0]
    assert ids.count(generator.tokenizer.bos_id) == 1
    assert generator.generate(prompt, GenerationOptions(num_words=2, max_num_images=0), 0)


def test_what_a_template_cannot_carry_is_named() -> None:
    generator = tiny_generator()
    with pytest.raises(ConfigError, match="no chat template; use dialogue_prompt"):
        chat_prompt(TALK, generator.tokenizer)
    generator.tokenizer.tokenizer.chat_template = TEMPLATE
    with pytest.raises(GenerationError, match=r"U\+FFFC"):
        chat_prompt([Turn((Segment(text="a \ufffc"),))], generator.tokenizer)
    generator.tokenizer.tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(GenerationError, match="2 pictures were said, the chat template kept 1"):
        chat_prompt(TALK, generator.tokenizer)


def test_examples_come_before_the_question_in_its_form() -> None:
    asked = [PHOTO, Segment(text="This is")]
    prompt = few_shot_prompt([(asked, "a cat"), (asked, "a dog ")], asked)
    assert shown(prompt) == [None, "This is", " a cat\n", None, "This is", " a dog\n", None, "This is"]
    drawn = few_shot_prompt([([Segment(text="a cat")], PHOTO)], [Segment(text=" a dog")])
    assert shown(drawn) == ["a cat", None, " a dog"]
