"""Pairs as read, prompts and contexts, and the batches of one training step.

Shape legend: B = samples, T = padded text tokens, M = pictures inside the texts, F = pooled image feature width,
L x C = conditioning sequence, E = retrieval width, N = samples of the whole optimiser step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from gill.errors import ShapeError

MaybeTensor = TypeVar("MaybeTensor", Tensor, Tensor | None)
IMAGE_SLOT = -1  # stands in `text_ids` where a picture is read; never a token id
IGNORED_LABEL = -100  # the field's word for "no loss here"


@dataclass(frozen=True)
class Segment:
    """One piece of a prompt or of a training context: a text or a picture. Exactly one field is set."""

    text: str | None = None
    image: Image.Image | None = None
    image_path: Path | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.text, self.image, self.image_path) if value is not None]
        if len(given) != 1:
            raise ShapeError(f"a segment is one text or one picture; got {len(given)} of text, image, image_path")

    @property
    def is_text(self) -> bool:
        """Whether this piece is text."""
        return self.text is not None


@dataclass(frozen=True)
class CaptionRecord:
    """One training pair, and where it was read.

    Attributes:
        caption: describes the picture; conditioning targets are made from it.
        image_path: the picture.
        context: read by the language model instead of the caption (story, dialogue, pictures); usually empty.
        source, line: file and line (from 1; 0 = none) the record comes from, for messages.
        describes: whether what is read is what to say of the picture; a story that leads to it is not.
    """

    caption: str
    image_path: Path
    context: tuple[Segment, ...] = ()
    source: str = ""
    line: int = 0
    describes: bool = True


@dataclass(frozen=True)
class Sample:
    """One encoded training pair, before batching.

    Attributes:
        text_ids: int64[T], beginning-of-sequence first, no [IMG] tokens; `IMAGE_SLOT` where a picture is read.
        image: float[F] stored pooled feature, or float[3, H, W] normalised pixels.
        context_images: one entry as `image` for each `IMAGE_SLOT`, in reading order.
        conditioning_target: float[L, C], or None.
        conditioning_ids: int64[L] caption ids of the text encoder's own tokenizer, or None.
        record: the pair as read, for reports and panels.
        num_cut_tokens: tokens at the end of the text that were left off because it was too long.
        describes: whether the text is what to say of the picture.
    """

    text_ids: Tensor
    image: Tensor
    context_images: tuple[Tensor, ...] = ()
    conditioning_target: Tensor | None = None
    conditioning_ids: Tensor | None = None
    record: CaptionRecord | None = None
    num_cut_tokens: int = 0
    describes: bool = True


@dataclass(frozen=True)
class WholeBatch:
    """What a share of a batch must know of the whole optimiser step, so that shares add up to the whole exactly.

    Attributes:
        num_samples: N, over all processes and accumulation steps. first_row: where this share starts among them.
        label_counts: labelled tokens by objective over the whole, e.g. {"captioning": 190, "text": 230}.
        text_embeddings, image_embeddings: float[N, E] detached retrieval rows of the whole; None when all are here or
            `gather` fetches them.
        gather: float[B, E] -> (float[N, E] rows of all processes in rank order, row where ours start). Others' rows are
            constants: their own process gives them gradient. None when no other process holds rows of this step.
    """

    num_samples: int
    label_counts: Mapping[str, int]
    text_embeddings: Tensor | None = None
    image_embeddings: Tensor | None = None
    first_row: int = 0
    gather: Callable[[Tensor], tuple[Tensor, int]] | None = None


@dataclass(frozen=True)
class Batch:
    """Everything one training step reads.

    Attributes:
        text_ids: int64[B, T], right-padded; see `Sample`. Stays on the host: the sequence layout is built there.
        text_lengths: int64[B], real tokens of each row, pictures counted as one. Stays on the host.
        images: float[B, F] pooled features or float[B, 3, H, W] pixels, of the picture each row is paired with.
        context_images: float[M, F] or float[M, 3, H, W], pictures of all `IMAGE_SLOT`s in row-major order, or None.
        conditioning_target: float[B, L, C], or None.
        conditioning_ids: int64[B, L] for the text encoder, or None.
        is_paired: rows (2i, 2i + 1) are read as one sequence; B is then even.
        records: the pairs as read, or empty.
        cut_rows: rows whose text was too long and lost its end.
        undescribed_rows: rows whose text is not what to say of the picture, so they are left out of captioning.
        whole: the optimiser step this batch is a share of; None when it is all of it.
    """

    text_ids: Tensor
    text_lengths: Tensor
    images: Tensor
    context_images: Tensor | None = None
    conditioning_target: Tensor | None = None
    conditioning_ids: Tensor | None = None
    is_paired: bool = False
    records: tuple[CaptionRecord, ...] = ()
    cut_rows: tuple[int, ...] = ()
    undescribed_rows: tuple[int, ...] = ()
    whole: WholeBatch | None = None

    def __post_init__(self) -> None:
        sizes = {"text_ids": len(self.text_ids), "text_lengths": len(self.text_lengths), "images": len(self.images)}
        if len(set(sizes.values())) != 1:
            raise ShapeError(f"texts and images must pair up one to one; got {sizes}")
        if self.is_paired and len(self) % 2:
            raise ShapeError(
                f"paired captions need an even batch; got {len(self)} rows, drop one or set is_paired=False"
            )
        num_slots = int((self.text_ids == IMAGE_SLOT).sum())
        num_pictures = 0 if self.context_images is None else len(self.context_images)
        if num_slots != num_pictures:
            raise ShapeError(f"the texts have {num_slots} places for pictures, context_images holds {num_pictures}")

    def __len__(self) -> int:
        return len(self.text_ids)

    @property
    def has_pixels(self) -> bool:
        """Whether `images` still has to go through the vision tower."""
        return self.images.dim() == 4

    @classmethod
    def from_samples(cls, samples: Sequence[Sample], is_paired: bool = False) -> Batch:
        """Right-pad and stack samples.

        Raises:
            ShapeError: no samples, or pictures and targets of different shapes.
        """
        if not samples:
            raise ShapeError("a batch needs at least one sample; got none")
        texts = [sample.text_ids for sample in samples]
        context = [image for sample in samples for image in sample.context_images]
        return cls(
            text_ids=torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=0),
            text_lengths=torch.tensor([len(text) for text in texts]),
            images=_stack("image", [sample.image for sample in samples]),
            context_images=_stack("context_images", context) if context else None,
            conditioning_target=_stack_all("conditioning_target", [s.conditioning_target for s in samples]),
            conditioning_ids=_stack_all("conditioning_ids", [s.conditioning_ids for s in samples]),
            is_paired=is_paired,
            records=tuple(sample.record for sample in samples if sample.record is not None),
            cut_rows=tuple(row for row, sample in enumerate(samples) if sample.num_cut_tokens),
            undescribed_rows=tuple(row for row, sample in enumerate(samples) if not sample.describes),
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same batch with pictures and targets on `device`; floats cast to `dtype` when given."""

        def move(tensor: MaybeTensor) -> MaybeTensor:
            if tensor is None:
                return None
            return tensor.to(device, dtype if tensor.is_floating_point() else None, non_blocking=True)

        return dataclasses.replace(
            self,
            images=move(self.images),
            context_images=move(self.context_images),
            conditioning_target=move(self.conditioning_target),
            conditioning_ids=move(self.conditioning_ids),
        )


def _stack(name: str, tensors: Sequence[Tensor]) -> Tensor:
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) != 1:
        raise ShapeError(f"{name} differs in shape within one batch: {shapes}; use either stored features or pixels")
    return torch.stack(list(tensors))


def _stack_all(name: str, tensors: Sequence[Tensor | None]) -> Tensor | None:
    given = [tensor for tensor in tensors if tensor is not None]
    if not given:
        return None
    if len(given) != len(tensors):
        raise ShapeError(f"{name} is there for {len(given)} of {len(tensors)} samples; give it for all or for none")
    return _stack(name, given)
