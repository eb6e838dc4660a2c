"""Prompts as the language model reads them: texts and pictures in reading order, laid out as in training.

Pictures stand between the vocabulary's brackets; its prefix and one beginning of sequence come before the first text,
or at the end of a prompt that has none. Empty texts are left out, so they cannot take the one beginning of sequence.

Shape legend: M = pictures of all prompts, F = pooled feature width, V = visual tokens a picture, D = width.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from gill.backbones import ImageTransform
from gill.data import open_image
from gill.errors import ConfigError, GenerationError
from gill.models.gill.encoding import GillTokenizer
from gill.models.gill.model import GillModel
from gill.models.gill.sequence import TokenRows
from gill.types import IGNORED_LABEL, Segment

_REMEMBERED_PICTURES = 256
_PICTURES_AT_ONCE = 64


@dataclass(frozen=True)
class Prompts:
    """Prompts as ids of the space of `sequence`.

    Attributes:
        ids: of each prompt; visual ids number the pictures of all prompts in reading order.
        is_text: one for each id, whether it came from a text of the prompt or opens one.
        visual: float[M, V, D], None where there are no pictures.
    """

    ids: tuple[tuple[int, ...], ...]
    is_text: tuple[tuple[bool, ...], ...]
    visual: Tensor | None

    def ending_in(self, suffix: Sequence[int]) -> Prompts:
        """The same prompts with these ids behind each."""
        ids = tuple((*row, *suffix) for row in self.ids)
        return Prompts(ids, tuple((*row, *(True,) * len(suffix)) for row in self.is_text), self.visual)

    def token_rows(self) -> TokenRows:
        """One row a prompt; texts are labelled."""
        rows = rows_of(self.ids)
        is_text = torch.tensor([flag for row in self.is_text for flag in row])
        return replace(rows, labels=rows.ids.where(is_text, IGNORED_LABEL))


def rows_of(ids: Sequence[Sequence[int]]) -> TokenRows:
    """Rows of these ids without labels."""
    lengths = torch.tensor([len(row) for row in ids])
    flat = torch.tensor([token for row in ids for token in row])
    rows = torch.arange(len(lengths)).repeat_interleave(lengths)
    positions = torch.arange(len(flat)) - (lengths.cumsum(0) - lengths)[rows]
    return TokenRows(flat, torch.full_like(flat, IGNORED_LABEL), rows, positions)


class PromptLayout:
    """Lays prompts out, and computes the feature of each picture once while it is remembered. Threads may share it.

    Args:
        transform: needed for pictures, not for features.
    """

    def __init__(self, model: GillModel, tokenizer: GillTokenizer, transform: ImageTransform | None) -> None:
        self.model, self.tokenizer, self.transform = model, tokenizer, transform
        self._features: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, prompts: Sequence[Sequence[Segment]], repeats_bos: bool = False) -> Prompts:
        """Prompts of texts and pictures; `repeats_bos` as in `GenerationOptions`.

        Raises:
            GenerationError: no prompts, or an empty one. DataError: a picture file that cannot be read.
            ConfigError: pictures came, but there is no vision tower for them.
        """
        pictures = iter(self.features([image for prompt in prompts for image in _images(prompt)]))
        pieces = [[next(pictures) if part.text is None else part.text for part in prompt] for prompt in prompts]
        return self.lay_out(pieces, repeats_bos)

    @torch.no_grad()
    def lay_out(self, prompts: Sequence[Sequence[str | Tensor]], repeats_bos: bool = False) -> Prompts:
        """Prompts of texts and float[F] features of pictures; arguments and errors as `read`."""
        if not prompts or not all(prompts):
            raise GenerationError("a prompt needs at least one text or picture; got none")
        pieces = [piece for prompt in prompts for piece in prompt]
        features = [piece for piece in pieces if isinstance(piece, Tensor)]
        pictures = iter(self.model.vocabulary.picture_ids(torch.arange(len(features))).tolist())
        texts = iter(self.tokenizer.words_of([piece for piece in pieces if isinstance(piece, str)]))
        opening = self._opening_ids()
        rows: list[list[tuple[int, bool]]] = []
        for prompt in prompts:
            laid = [(next(texts), True) if isinstance(piece, str) else (next(pictures), False) for piece in prompt]
            opened = _with_openings(laid, opening, repeats_bos)
            rows.append([(token, is_text) for ids, is_text in opened for token in ids])
        visual = self.model.visual_prefix(torch.stack(features)) if features else None
        ids = tuple(tuple(token for token, _ in row) for row in rows)
        return Prompts(ids, tuple(tuple(flag for _, flag in row) for row in rows), visual)

    @torch.no_grad()
    def features(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """float[F] of each picture, of any mode and size.

        Raises:
            ConfigError: there is no transform.
        """
        if images and self.transform is None:
            raise ConfigError("this generator was built without image preprocessing; give it a transform")
        with self._lock:
            return self._features_of(images)

    def _features_of(self, images: Sequence[Image.Image]) -> list[Tensor]:
        keys = [_digest(image) for image in images]
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in self._features}
        found = {key: self._features[key] for key in keys if key in self._features}
        for start in range(0, len(missing), _PICTURES_AT_ONCE):
            part = list(missing)[start : start + _PICTURES_AT_ONCE]
            assert self.transform is not None
            pixels = self.transform.batch([missing[key] for key in part])
            found |= zip(part, self.model.image_features(pixels), strict=True)
        self._remember(found)
        return [found[key] for key in keys]

    def _remember(self, found: dict[bytes, Tensor]) -> None:
        for key, feature in found.items():
            self._features[key] = feature
            self._features.move_to_end(key)
        while len(self._features) > _REMEMBERED_PICTURES:
            self._features.popitem(last=False)

    def _opening_ids(self) -> list[int]:
        return [*self.model.vocabulary.prefix, self.tokenizer.bos_id]


def _images(prompt: Sequence[Segment]) -> Iterator[Image.Image]:
    for part in prompt:
        if part.image is not None:
            yield part.image
        elif part.image_path is not None:
            yield open_image(part.image_path, "prompt")


def _with_openings(
    pieces: Sequence[tuple[list[int], bool]], opening: list[int], repeats_bos: bool
) -> Iterator[tuple[list[int], bool]]:
    """Ids of pieces, each with whether it is a text, with what opens texts where it belongs and no empty text."""
    has_begun = False
    for ids, is_text in pieces:
        if is_text and not ids:
            continue
        if is_text and (repeats_bos or not has_begun):
            yield opening, True
        has_begun |= is_text
        yield ids, is_text
    if not has_begun:
        yield opening, True


def _digest(image: Image.Image) -> bytes:
    """Of what is seen: the numbers of a picture with a palette are not its colours."""
    pixels = image.convert("RGB").tobytes()
    return hashlib.blake2b(f"{image.size}".encode() + pixels, digest_size=16).digest()
