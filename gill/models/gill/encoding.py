"""Texts and pictures to the ids and pixels of a batch.

The language model's tokenizer gains the [IMG] tokens (and, where the frozen table has a spare row for it, the class
token `<|image|>` before them, as the originals did: their [IMG0] is then one id later).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gill.backbones import (
    ConditioningTokenizer,
    ImageTransform,
    load_conditioning_tokenizer,
    load_image_transform,
    load_language_tokenizer,
    tiny_conditioning_tokenizer,
    tiny_image_transform,
    tiny_tokenizer,
)
from gill.errors import ConfigError, DataError
from gill.models.gill.config import GillConfig
from gill.models.gill.sequence import Vocabulary
from gill.types import IMAGE_SLOT, CaptionRecord, Sample

CLASS_TOKEN = "<|image|>"  # reserved by the originals, read by nothing


class GillTokenizer:
    """The language model's tokenizer with the [IMG] tokens.

    Args:
        tokenizer: of the frozen language model; it is extended in place.
        num_rows: rows of the frozen embedding table.

    Raises:
        ConfigError: a token cannot be added as one id, or the table is too small for the tokenizer.
    """

    def __init__(self, tokenizer: Any, config: GillConfig, num_rows: int) -> None:
        if len(tokenizer) < num_rows:
            tokenizer.add_special_tokens({"cls_token": CLASS_TOKEN})
        self.num_words = len(tokenizer)
        if self.num_words > num_rows:
            raise ConfigError(
                f"the tokenizer has {self.num_words} words, the language model {num_rows} rows; "
                "they do not belong together"
            )
        tokenizer.add_tokens(config.img_token_names)
        if tokenizer.convert_tokens_to_ids(config.img_token_names) != list(range(self.num_words, len(tokenizer))):
            raise ConfigError(
                f"the tokenizer already knows one of {config.img_token_names}; set img_token_name to another name"
            )
        self.tokenizer, self.config = tokenizer, config
        self.bos_id = _first_known(tokenizer.bos_token_id, tokenizer.eos_token_id)
        self.eos_id = tokenizer.eos_token_id

    @property
    def vocabulary(self) -> Vocabulary:
        """The id space of this tokenizer and config."""
        brackets = [tuple(self.words(text)) for text in self.config.image_brackets] or [(), ()]
        prefix = tuple(self.words(self.config.input_prefix))
        sizes = (self.num_words, self.config.num_img_tokens, self.config.num_visual_tokens)
        return Vocabulary(*sizes, opening=brackets[0], closing=brackets[1], prefix=prefix)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids at which a reply is over."""
        return frozenset({self.eos_id, *self.words(self.config.stop_words)})

    def words(self, text: str) -> list[int]:
        """Ids of a text, without beginning of sequence; names of [IMG] tokens become their ids."""
        return self.words_of([text])[0]

    def words_of(self, texts: Sequence[str]) -> list[list[int]]:
        """As `words`, of many texts: one call of the tokenizer costs a multiple of a short text."""
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens such as end of sequence left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


class GillEncoder:
    """Records to samples. Picklable, so that loader workers can own one.

    Args:
        max_tokens: longest text with its beginning of sequence and the [IMG] tokens; longer captions lose their end.
        conditioning: tokenizer of the diffusion model's text encoder, or None when targets are stored or not used.
    """

    def __init__(
        self,
        tokenizer: GillTokenizer,
        transform: ImageTransform | None,
        conditioning: ConditioningTokenizer | None,
        max_tokens: int,
    ) -> None:
        self.tokenizer, self.transform, self.conditioning = tokenizer, transform, conditioning
        self.max_text_tokens = max_tokens - tokenizer.config.num_img_tokens
        if self.max_text_tokens < 2:
            raise ConfigError(
                f"max_tokens={max_tokens} leaves no room for text beside {tokenizer.config.num_img_tokens} [IMG] tokens"
            )

    def encode(
        self,
        record: CaptionRecord,
        image: Image.Image | Tensor,
        context_images: Sequence[Image.Image | Tensor] = (),
        conditioning_target: Tensor | None = None,
    ) -> Sample:
        """One record with its pictures; a picture given as a tensor is a stored feature and passes unchanged.

        Raises:
            DataError: an empty text, a text that names [IMG] tokens, or a context whose pictures are not all given.
        """
        text_ids, num_cut_tokens = self.text_ids(record)
        if int((text_ids == IMAGE_SLOT).sum()) != len(context_images):
            raise DataError(
                f"{_place(record)}: the context does not fit its {len(context_images)} pictures; raise max_tokens"
            )
        return Sample(
            text_ids=text_ids,
            image=self.pixels(image),
            context_images=tuple(self.pixels(picture) for picture in context_images),
            conditioning_target=conditioning_target,
            conditioning_ids=None if conditioning_target is not None else self._conditioning_ids(record.caption),
            record=record,
            num_cut_tokens=num_cut_tokens,
            describes=record.describes,
        )

    def text_ids(self, record: CaptionRecord) -> tuple[Tensor, int]:
        """int64[T] ids of what the language model reads, and how many a caption lost beyond `max_text_tokens`.

        Raises:
            DataError: as `encode`.
        """
        ids = self._context_ids(record) if record.context else self.tokenizer.words(record.caption.strip())
        if not ids:
            raise DataError(f"{_place(record)}: the caption is empty; remove the row or write one")
        if max(ids) >= self.tokenizer.num_words:
            raise DataError(f"{_place(record)}: the text contains an [IMG] token's name; those are added by the model")
        room = self.max_text_tokens - 1
        if record.context and len(ids) > room:
            raise DataError(f"{_place(record)}: the context has {len(ids)} tokens, {room} fit; raise max_tokens")
        return torch.tensor([self.tokenizer.bos_id, *ids[:room]]), max(len(ids) - room, 0)

    def pixels(self, image: Image.Image | Tensor) -> Tensor:
        """float[3, H, W] of a picture, or the stored feature itself.

        Raises:
            ConfigError: a picture came, but the encoder was built for stored features only.
        """
        if isinstance(image, Tensor):
            return image
        if self.transform is None:
            raise ConfigError("this encoder was built without a vision tower; give stored features")
        return self.transform(image)

    def _conditioning_ids(self, caption: str) -> Tensor | None:
        return None if self.conditioning is None else self.conditioning([caption])[0]

    def _context_ids(self, record: CaptionRecord) -> list[int]:
        return [
            i
            for part in record.context
            for i in (self.tokenizer.words(part.text) if part.text is not None else [IMAGE_SLOT])
        ]


def load_tokenizer(config: GillConfig, num_rows: int) -> GillTokenizer:
    """The tokenizer of `config.language` with its [IMG] tokens; `num_rows` as `GillTokenizer`.

    Raises:
        ConfigError: nothing loadable there.
    """
    if is_tiny(config.language):
        return GillTokenizer(tiny_tokenizer(), config, num_rows)
    return GillTokenizer(load_language_tokenizer(config.language), config, num_rows)


def load_encoder(config: GillConfig, num_rows: int, max_tokens: int) -> GillEncoder:
    """The encoder that belongs to a model.

    Args:
        num_rows: rows of the frozen embedding table (`len(model.language.table)`).
        max_tokens: as `GillEncoder`.
    """
    conditioning = None
    if config.makes_targets:
        tiny = is_tiny(config.diffusion)
        conditioning = tiny_conditioning_tokenizer() if tiny else load_conditioning_tokenizer(config.diffusion)
    return GillEncoder(load_tokenizer(config, num_rows), load_transform(config), conditioning, max_tokens)


def load_transform(config: GillConfig) -> ImageTransform:
    """The preprocessing that belongs to `config.vision`.

    Raises:
        ConfigError: nothing loadable there.
    """
    return tiny_image_transform() if is_tiny(config.vision) else load_image_transform(config.vision)


def is_tiny(name: str) -> bool:
    """Whether a backbone's name asks for a random tiny one."""
    return name == "tiny" or name.startswith("tiny:")


def _first_known(*ids: int | None) -> int:
    for token_id in ids:
        if token_id is not None:
            return token_id
    raise ConfigError("the tokenizer has neither a beginning nor an end of sequence; one must open every text")


def _place(record: CaptionRecord) -> str:
    return f"{record.source}:{record.line}" if record.source else str(record.image_path)
