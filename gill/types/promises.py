"""What a family promises: a training task, an encoder of samples, a generator; and what the task reports.

Shape legend: B = samples, L x C = conditioning sequence, E = retrieval width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image
from torch import Tensor

from gill.types.generation import GenerationOptions, ImageOutput
from gill.types.samples import Batch, CaptionRecord, Sample, Segment


@dataclass(frozen=True)
class LossBreakdown:
    """The loss of one batch and what it is made of.

    Attributes:
        total: float[], weighted sum; the only part that carries gradient.
        parts: unweighted values by objective ("captioning", "text", "contrastive", "conditioning"), detached.
        label_counts: labelled tokens of this batch by objective.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    label_counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Embeddings:
    """Unit-norm rows of one batch in the retrieval space: float[B, E] each; row i of both is sample i."""

    text: Tensor
    image: Tensor


@dataclass(frozen=True)
class Evaluation:
    """What validation needs of one batch.

    Attributes:
        losses: as in training. embeddings: retrieval rows, None for a family without retrieval.
        num_top1, num_top5, num_tokens: caption tokens whose true id was first, or among the first five; of how many.
        conditioning: float[B, L, C] mapped sequences, or None.
    """

    losses: LossBreakdown
    embeddings: Embeddings | None
    num_top1: int
    num_top5: int
    num_tokens: int
    conditioning: Tensor | None = None


class TrainingTask(Protocol):
    """A family's training objective. Implementations are `nn.Module`s, so DDP wraps the one `forward`."""

    def __call__(self, batch: Batch) -> LossBreakdown:
        """Loss of a batch, or of a share of one (`batch.whole`): gradients of all shares add up to the whole's."""
        ...

    def label_counts(self, batch: Batch) -> Mapping[str, int]:
        """Labelled tokens by objective, from the lengths alone: no network is run."""
        ...

    def embed(self, batch: Batch) -> Embeddings | None:
        """Retrieval rows without gradient, for `WholeBatch`; None for a family without in-batch negatives."""
        ...

    def evaluate(self, batch: Batch) -> Evaluation:
        """Losses and what validation scores, without gradient."""
        ...

    def after_update(self) -> None:
        """What the recipe does to the weights after each optimiser update (not after each accumulation step)."""
        ...


class SampleEncoder(Protocol):
    """Turns a record into a `Sample`; picklable, so that loader workers can own one."""

    def encode(
        self,
        record: CaptionRecord,
        image: Image.Image | Tensor,
        context_images: Sequence[Image.Image | Tensor] = (),
        conditioning_target: Tensor | None = None,
    ) -> Sample:
        """Token ids and pixels of one record; a picture given as a tensor is a stored feature."""
        ...


class Generator(Protocol):
    """A family's inference."""

    def generate(self, prompt: Sequence[Segment], options: GenerationOptions, seed: int) -> list[str | ImageOutput]:
        """Answer one prompt with texts and images in reading order."""
        ...


@dataclass(frozen=True)
class Family:
    """One model family as the registry knows it.

    Attributes:
        name: as in `gill.models`.
        presets: complete settings (`.model`, `.recipe`) by name.
        build: (model settings, device, max_tokens, seed) -> (task, encoder), backbones loaded and what trains fresh.
    """

    name: str
    presets: Mapping[str, Any]
    build: Callable[..., tuple[TrainingTask, SampleEncoder]]
