"""The page of the demo: a chat with pictures, its sliders and buttons, over the conversations of `demo.chat`.

What one user says is in that user's `gr.State` and nowhere else; callbacks get it and give it back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from demo.chat import FORMS, KINDS, Conversation, Message, Part, Settings, Streamer, open_upload, reply
from demo.keeping import RateLimit, save
from demo.openings import Opening
from gill.errors import GillError

MAX_UPLOAD = "10mb"
MAX_WAITING = 16  # requests in the queue; further ones are told to come back
_FORGET_AFTER_SECONDS = 3600  # copies of pictures that pages were sent
# gradio offers to send a shown picture to another host, and has no setting against it
STYLE = '#chat [aria-label="Share"] { display: none; }'
# Fonts of the reader's own machine: the page asks no other host for anything.
THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


@dataclass(frozen=True)
class Offer:
    """What a page offers.

    Attributes:
        name: of the model. about: a sentence or two beneath it.
        folder: for pictures and saved conversations. It must be inside the system's folder for temporary files.
        defaults: of the sliders.
        can_draw, can_retrieve: which sliders make sense.
        examples: first messages, as text and pictures.
    """

    name: str
    about: str
    folder: Path
    defaults: Settings
    can_draw: bool
    can_retrieve: bool
    examples: Sequence[Opening] = ()


class Callbacks:
    """What happens on a page: each takes a conversation and gives back what is shown of the next one."""

    def __init__(self, generator: Streamer, offer: Offer, limit: RateLimit) -> None:
        self.generator, self.offer, self.limit = generator, offer, limit

    def answer(
        self, message: dict[str, Any], conversation: Conversation, *values: Any, caller: str, progress: gr.Progress
    ) -> Iterator[tuple[list[dict[str, Any]], Conversation, dict[str, Any]]]:
        """(shown messages, conversation, what stands in the box) as the reply grows.

        A refused message stays in the box, and what is written there while a reply grows.
        """
        try:
            self.limit.check(caller)
            pictures = [open_upload(Path(name), self.offer.folder) for name in message["files"]]
            asked = conversation.asked(message["text"], pictures)
            yield shown(asked), asked, _EMPTY
            steps = reply(asked, self.generator, self._settings(values), self.offer.folder, _drawing(progress))
            for current in steps:
                yield shown(current), dataclasses.replace(current, note=""), gr.skip()
        except (GillError, OSError) as error:
            gr.Warning(str(error))
            yield shown(conversation), conversation, message
        except (RuntimeError, MemoryError):  # a GPU's memory ran out: the question is not lost with the reply
            yield shown(conversation), conversation, message
            raise

    def undo(self, conversation: Conversation) -> tuple[list[dict[str, Any]], Conversation]:
        """Without the last question and its answer."""
        return shown(conversation.undone()), conversation.undone()

    def reset(self) -> tuple[list[dict[str, Any]], Conversation, dict[str, Any], Any]:
        """A new conversation, an empty box, no file."""
        return [], Conversation(), _EMPTY, gr.File(value=None, visible=False)

    def save(self, conversation: Conversation, *values: Any) -> Any:
        """The file of the conversation."""
        try:
            path = save(conversation, self._settings(values), self.offer.name, self.offer.folder)
        except GillError as error:
            gr.Warning(str(error))
            return gr.File(value=None, visible=False)
        return gr.File(value=str(path), visible=True)

    def _settings(self, values: Sequence[Any]) -> Settings:
        """What the sliders say; a field that was emptied says what it began with."""
        starts = dataclasses.astuple(self.offer.defaults)
        return Settings(*(start if value is None else value for value, start in zip(values, starts, strict=False)))


def shown(conversation: Conversation) -> list[dict[str, Any]]:
    """A conversation as gradio's chat takes it."""
    messages = [_shown_message(message) for message in conversation.messages]
    note = [{"role": "assistant", "content": [f"({conversation.note})"]}] if conversation.note else []
    return [message for message in messages if message["content"]] + note


def build_page(generator: Streamer, offer: Offer, limit: RateLimit) -> gr.Blocks:
    """The page; `gr.Blocks.launch` serves it."""
    calls = Callbacks(generator, offer, limit)

    def answer(
        message: dict[str, Any],
        conversation: Conversation,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008  # gradio finds it by this default
        *values: Any,
    ) -> Iterator[Any]:
        caller = request.client.host if request.client else ""
        yield from calls.answer(message, conversation, *values, caller=caller, progress=progress)

    cache_times = (_FORGET_AFTER_SECONDS, _FORGET_AFTER_SECONDS)
    with gr.Blocks(title=f"GILL: {offer.name}", analytics_enabled=False, delete_cache=cache_times) as page:
        conversation = gr.State(Conversation())  # of closed pages gradio forgets it after an hour
        gr.Markdown(f"## {offer.name}\n{offer.about}")
        with gr.Row():
            with gr.Column(scale=3):
                chat, box = _chat(), _box()
                with gr.Row():
                    undo, reset, keep = (gr.Button(name, elem_id=name) for name in ("undo", "reset", "save"))
                file = gr.File(visible=False, label="conversation", elem_id="saved")
            with gr.Column(scale=1, min_width=260):
                sliders = _sliders(offer)
        _examples(offer, box)
        hidden = {"api_visibility": "private"}
        running = box.submit(
            answer,
            [box, conversation, *sliders],
            [chat, conversation, box],
            concurrency_limit=1,  # one model: requests wait for each other
            show_progress="minimal",
            **hidden,
        )
        undo.click(calls.undo, conversation, [chat, conversation], cancels=[running], **hidden)
        reset.click(calls.reset, None, [chat, conversation, box, file], cancels=[running], **hidden)
        keep.click(calls.save, [conversation, *sliders], file, **hidden)
    page.queue(max_size=MAX_WAITING)
    return page


_EMPTY: dict[str, Any] = {"text": "", "files": []}


def _drawing(progress: gr.Progress) -> Any:
    return lambda done, total: progress((done, total), desc="drawing", unit="steps")


def _shown_message(message: Message) -> dict[str, Any]:
    content = [piece for part in message.parts for piece in _shown_part(part)]
    return {"role": "assistant" if message.is_reply else "user", "content": content}


def _shown_part(part: Part) -> list[Any]:
    picture = [{"path": str(part.picture), "alt_text": part.remark or "picture"}] if part.picture else []
    return [*picture, *(text for text in (part.text.strip(), part.remark and f"[{part.remark}]") if text)]


def _chat() -> gr.Chatbot:
    # a model's words are no markup: an address in them would make the browser ask another host
    return gr.Chatbot(
        elem_id="chat",
        show_label=False,
        height=520,
        render_markdown=False,
        allow_tags=False,
        buttons=["copy_all"],
        feedback_options=None,
        placeholder="Write something, add a picture, or take an example.",
    )


def _box() -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(
        elem_id="box",
        show_label=False,
        sources=["upload"],
        file_types=["image"],
        file_count="multiple",
        placeholder="Words, pictures, or both",
        autofocus=True,
    )


def _sliders(offer: Offer) -> list[gr.components.Component]:
    """One for each field of `Settings`, in its order."""
    start, draws, both = offer.defaults, offer.can_draw, offer.can_draw and offer.can_retrieve
    return [
        gr.Slider(-10, 10, start.image_frequency, step=0.1, label="image frequency", elem_id="image_frequency"),
        gr.Slider(1, 64, start.num_words, step=1, label="words at most", elem_id="num_words"),
        gr.Slider(0, 1, start.temperature, step=0.05, label="temperature (0: the likeliest words)"),
        gr.Slider(0, 15, start.guidance_scale, step=0.5, label="guidance (0: the model's own)", visible=draws),
        gr.Slider(0, 100, start.num_inference_steps, step=1, label="drawing steps (0: the model's own)", visible=draws),
        gr.Slider(0, 3, start.num_images, step=1, label="images in a reply at most", elem_id="num_images"),
        gr.Slider(1, 3, start.num_pictures, step=1, label="pictures of each kind", elem_id="num_pictures"),
        gr.Radio(list(KINDS), value=start.kind, label="pictures", elem_id="kind", visible=both),
        gr.Radio(list(FORMS), value=start.form, label="how the model reads the conversation", elem_id="form"),
        gr.Number(start.seed, label="seed", precision=0, minimum=0, maximum=2**31 - 1, elem_id="seed"),
    ]


def _examples(offer: Offer, box: gr.MultimodalTextbox) -> None:
    if offer.examples:
        rows = [[{"text": text, "files": [str(path) for path in paths]}] for text, paths in offer.examples]
        gr.Examples(rows, box, label="examples", cache_examples=False)
