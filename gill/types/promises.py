"""What a family promises: a training task, an encoder of samples, a generator, and to be built, saved and shown.

Shape legend: B = samples, L x C = conditioning sequence, E = retrieval width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

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


class TrainingTask(nn.Module, ABC):
    """A family's training objective: a module whose `forward` is the loss of a step, or of a share of one."""

    @abstractmethod
    def forward(self, batch: Batch) -> LossBreakdown:
        """Loss of a batch, or of a share of one (`batch.whole`): gradients of all shares add up to the whole's."""

    @abstractmethod
    def label_counts(self, batch: Batch) -> Mapping[str, int]:
        """Labelled tokens by objective, from the lengths alone: no network is run."""

    @abstractmethod
    def embed(self, batch: Batch) -> Embeddings | None:
        """Retrieval rows without gradient, for `WholeBatch`; None for a family without in-batch negatives."""

    @abstractmethod
    def evaluate(self, batch: Batch) -> Evaluation:
        """Losses and what validation scores, without gradient."""

    @abstractmethod
    def token_rows(self) -> Sequence[nn.Parameter]:
        """What trains on the input side of a frozen network, and learns at `Recipe.token_rate`; may be empty."""

    @abstractmethod
    def frozen_layers(self) -> nn.ModuleList:
        """The layers that hold most of the frozen weights, alike and run one after the other; for sharding."""

    @abstractmethod
    def after_update(self) -> None:
        """What the recipe does to the weights after each optimiser update (not after each accumulation step)."""


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


class Illustrator(Protocol):
    """What a family can show beside its scores: words for pictures, pictures for conditioning."""

    def describe(self, images: Tensor) -> list[str]:
        """A caption of each picture, float[B, F] features or float[B, 3, H, W] pixels."""
        ...

    def draw(self, conditioning: Tensor, seeds: Sequence[int]) -> list[Image.Image | None]:
        """A picture for each float[L, C] conditioning sequence, None where a safety checker withheld it; empty where
        no diffusion model is at hand.
        """
        ...


class ModelSettings(Protocol):
    """What is asked of any family's model settings; everything else in them is the family's own."""

    @property
    def vision(self) -> str:
        """Name of the vision tower, which stored image features must be of."""
        ...

    @property
    def has_mapper(self) -> bool:
        """Whether the model draws."""
        ...

    @property
    def stored_target_shape(self) -> tuple[int, int] | None:
        """(L, C) of conditioning targets that the data must hold; None when they are computed or not needed."""
        ...


class Family(ABC):
    """One model family as the registry knows it.

    Attributes:
        name: as in `gill.models`.
        presets: complete settings (`.model`, `.recipe`) by name.
    """

    name: str
    presets: Mapping[str, Any]

    @abstractmethod
    def build(
        self, settings: Any, device: torch.device | str, max_tokens: int, seed: int
    ) -> tuple[TrainingTask, SampleEncoder]:
        """Task and encoder: backbones loaded, and what trains fresh from `seed`.

        Args:
            settings: the family's model settings.
            max_tokens: longest text.

        Raises:
            ConfigError: settings that contradict a backbone, or a name that leads nowhere.
        """

    @abstractmethod
    def save(self, folder: Path, task: TrainingTask) -> None:
        """Write what trains, and the settings to build the rest around it."""

    @abstractmethod
    def load(self, folder: Path, task: TrainingTask) -> None:
        """Copy what `save` wrote into a task of the same settings.

        Raises:
            CheckpointError: it is not there, damaged, or does not fit.
        """

    @abstractmethod
    def illustrator(
        self,
        task: TrainingTask,
        encoder: SampleEncoder,
        prompt: str,
        max_words: int,
        num_inference_steps: int | None,
        guidance_scale: float | None,
    ) -> Illustrator:
        """Who captions and draws in a validation.

        Args:
            prompt: words every caption begins with. max_words: tokens of a caption at most.
            num_inference_steps, guidance_scale: of the diffusion model; None takes its own.
        """
