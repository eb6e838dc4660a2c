"""Answering prompts: options, pictures and events, and what a generator needs of an index and a diffusion model.

Shape legend: N = pictures of an index, E = retrieval width, L x C = conditioning sequence, Q = queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from torch import Tensor

from gill.errors import GenerationError


@dataclass(frozen=True)
class Picture:
    """One picture of an answer.

    Attributes:
        score: cosine in [-1, 1] with what the language model asked for, or None when nothing could score it.
        source: path or address of a retrieved picture, "seed 17" for a generated one.
    """

    image: Image.Image
    score: float | None
    source: str


@dataclass(frozen=True)
class ImageOutput:
    """The pictures answered at one place of a reply.

    Attributes:
        generated, retrieved: best first; scores of both are cosines in the retrieval space and compare.
        prefers_generated: which kind the decision head chose, or the only kind there can be; None without a head.
        probability_generated: of that choice, in [0, 1]; None where `prefers_generated` is.
        conditioning: float[L, C] mapped sequence; None for a model that does not draw.
        notes: what the reader should know, e.g. "2 dead links were skipped".
    """

    generated: tuple[Picture, ...] = ()
    retrieved: tuple[Picture, ...] = ()
    prefers_generated: bool | None = None
    probability_generated: float | None = None
    conditioning: Tensor | None = None
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> Picture | None:
        """The one to show: the first of the preferred kind, or of the other kind where that gave none."""
        kinds = (self.generated, self.retrieved)
        ordered = kinds[::-1] if self.prefers_generated is False else kinds
        return next((pictures[0] for pictures in ordered if pictures), None)


@dataclass(frozen=True)
class GenerationOptions:
    """How to answer a prompt.

    Attributes:
        num_words: tokens to generate at most, an image counting as one; 0 reads the prompt only and answers the
            images it asks for itself, as in "a watercolor of this [RET]".
        min_word_tokens: [IMG0] is impossible before this many tokens.
        temperature: 0 is greedy.
        top_p, top_k: nucleus mass in (0, 1], likeliest tokens kept (0 keeps all); both need a temperature.
        img_logit_bias: added to the [IMG0] logit: the odds of an image grow by exp of it, whatever the logit's sign.
        img_logit_scale: factor on the [IMG0] logit as the originals define it (`GillConfig.img_logit_rule`); 1 changes
            nothing.
        force_image: the first image comes at the first place allowed.
        max_num_images: at most so many; the reply ends where the model asks for one more, and 0 forbids images.
        num_retrieved, num_generated: pictures fetched and kept of those drawn, per image.
        num_candidates: drawn for each one kept; the best in the retrieval space are kept.
        guidance_scale: classifier-free guidance of the diffusion model; num_inference_steps: its steps; None leaves
            both to the model's own defaults.
        stop_at_newline: end the reply at the first newline after a word, as the originals cut it.
        repeats_bos: every text of the prompt begins with a beginning of sequence, not only the first.

    Raises:
        GenerationError: a value outside its range, or settings that contradict each other.
    """

    num_words: int = 32
    min_word_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    img_logit_bias: float = 0.0
    img_logit_scale: float = 1.0
    force_image: bool = False
    max_num_images: int = 1
    num_retrieved: int = 3
    num_generated: int = 1
    num_candidates: int = 1
    guidance_scale: float | None = None
    num_inference_steps: int | None = None
    stop_at_newline: bool = True
    repeats_bos: bool = False

    def __post_init__(self) -> None:
        for name in ("num_words", "min_word_tokens", "temperature", "top_k", "max_num_images", "num_retrieved"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("top_p", 0 < self.top_p <= 1, "above 0 and at most 1")
        self._require("num_generated", self.num_generated >= 0, "0 or more")
        self._require("num_candidates", self.num_candidates >= 1, "at least 1")
        if self.temperature == 0 and (self.top_p < 1 or self.top_k > 0):
            raise GenerationError(
                f"top_p={self.top_p} and top_k={self.top_k} choose among samples, temperature=0 takes the likeliest; "
                "set a temperature, or leave both out"
            )
        if self.force_image and not (self.max_num_images and self.min_word_tokens < self.num_words):
            raise GenerationError(
                f"force_image needs max_num_images >= 1 and room after the words: got max_num_images="
                f"{self.max_num_images}, min_word_tokens={self.min_word_tokens}, num_words={self.num_words}"
            )

    def _require(self, name: str, is_met: bool, wanted: str) -> None:
        if not is_met:
            raise GenerationError(f"{name} must be {wanted}, got {getattr(self, name)}")


@dataclass(frozen=True)
class TextDelta:
    """A stretch of text that was added to the reply."""

    text: str


@dataclass(frozen=True)
class ImageDecided:
    """An image belongs here; its pictures follow with `ImageReady`."""

    output: ImageOutput


@dataclass(frozen=True)
class ImageReady:
    """The image decided last, with its pictures."""

    output: ImageOutput


GenerationEvent = TextDelta | ImageDecided | ImageReady


@dataclass(frozen=True)
class Hit:
    """One result of a search: cosine in [-1, 1], and the path or address of the picture."""

    score: float
    source: str


class PictureIndex(Protocol):
    """Retrieval rows of many pictures, with the place each came from."""

    @property
    def num_images(self) -> int:
        """N."""
        ...

    @property
    def width(self) -> int:
        """E."""
        ...

    def search(self, queries: Tensor, count: int) -> list[list[Hit]]:
        """The `count` best pictures of each float[Q, E] unit row, best first; fewer if the index is smaller."""
        ...


class PictureSource(Protocol):
    """Opens the pictures an index names."""

    def fetch(self, source: str) -> Image.Image:
        """The picture at a path or address.

        Raises:
            OSError: a dead link or a refused address.
        """
        ...


class Drawer(Protocol):
    """A text-to-image model that is conditioned on sequences instead of words."""

    @property
    def conditioning_shape(self) -> tuple[int, int]:
        """(L, C)."""
        ...

    def draw(
        self,
        conditioning: Tensor,
        seeds: Sequence[int],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Image.Image | None]:
        """A picture of each float[L, C] sequence, each from its own seed; None where a safety checker withheld it."""
        ...
