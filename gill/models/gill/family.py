"""What the registry knows of GILL and FROMAGe: how they are built, saved, read back and shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from gill.models.gill.checkpoint import load_weights, save_model
from gill.models.gill.config import PRESETS, GillConfig, Preset
from gill.models.gill.encoding import GillEncoder
from gill.models.gill.illustrator import GillIllustrator
from gill.models.gill.loading import build
from gill.models.gill.model import GillModel
from gill.models.gill.task import GillTask
from gill.types import Family, SampleEncoder, TrainingTask


class GillFamily(Family):
    """GILL, and FROMAGe as a preset of it; see `gill.types.Family`."""

    name = "gill"
    presets: Mapping[str, Preset] = PRESETS

    def build(
        self, settings: GillConfig, device: torch.device | str, max_tokens: int, seed: int
    ) -> tuple[GillTask, GillEncoder]:
        """Task and encoder."""
        return build(settings, device, max_tokens, seed)

    def save(self, folder: Path, task: TrainingTask) -> None:
        """Write what trains."""
        save_model(folder, _model(task))

    def load(self, folder: Path, task: TrainingTask) -> None:
        """Read what `save` wrote."""
        load_weights(folder, _model(task))

    def illustrator(
        self,
        task: TrainingTask,
        encoder: SampleEncoder,
        prompt: str,
        max_words: int,
        num_inference_steps: int | None,
        guidance_scale: float | None,
    ) -> GillIllustrator:
        """Who captions and draws in a validation."""
        assert isinstance(encoder, GillEncoder)
        return GillIllustrator(_model(task), encoder.tokenizer, prompt, max_words, num_inference_steps, guidance_scale)


def _model(task: TrainingTask) -> GillModel:
    assert isinstance(task, GillTask)
    return task.model
