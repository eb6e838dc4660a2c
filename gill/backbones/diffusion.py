"""A text-to-image pipeline that draws from conditioning sequences instead of prompts.

Any `diffusers` pipeline that takes `prompt_embeds` and their unconditional counterparts: Stable Diffusion 1.x and 2.x,
and Stable Diffusion XL, whose pooled vector rides in the last rows of the sequence (`gill.backbones.pooled`).

Shape legend: B = pictures, L x C = conditioning sequence, pooled rows included, P = pooled width.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gill.backbones.pooled import pack_pooled, unpack_pooled
from gill.config import from_dict, require_known, to_dict
from gill.errors import ConfigError, GenerationError, ShapeError

SAMPLING_FILE = "sampling.json"
# names people say -> classes of diffusers
SCHEDULERS = {"ddim": "DDIMScheduler", "dpm-solver": "DPMSolverMultistepScheduler", "euler": "EulerDiscreteScheduler"}
_PIXELS_AT_ONCE = 8 * 512 * 512  # eight pictures of Stable Diffusion 1.5, as the original draws them
_MAX_AT_ONCE = 32  # small pictures gain nothing from more
_NEEDED = ("prompt_embeds", "negative_prompt_embeds", "generator", "callback_on_step_end")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sampling:
    """How a pipeline wants to be sampled: `sampling.json` in its folder.

    Attributes:
        num_inference_steps: denoising steps. guidance_scale: of classifier-free guidance; 1 turns it off.
    """

    num_inference_steps: int
    guidance_scale: float

    def __post_init__(self) -> None:
        if self.num_inference_steps < 1 or self.guidance_scale < 0:
            raise GenerationError(
                f"num_inference_steps must be at least 1 and guidance_scale at least 0, got {self.num_inference_steps} "
                f"and {self.guidance_scale}"
            )


class DiffusionDrawer:
    """Draws pictures from conditioning sequences, each from its own seed.

    A picture is a function of its sequence, its seed and the sampling: picture 17 is the same alone and in any batch,
    up to rounding. Noise is drawn on the CPU, so that a seed means the same on every device. Threads may share a
    drawer: they draw one after the other, because a scheduler remembers the steps of what it is drawing.

    Args:
        pipeline: of diffusers, with its text encoder.
        sampling: steps and guidance where the caller names none; None takes the pipeline class's own.
        pictures_at_once: denoised together; None chooses by the size of the pictures.

    Raises:
        ConfigError: the pipeline cannot be driven by a sequence.
    """

    def __init__(self, pipeline: Any, sampling: Sampling | None = None, pictures_at_once: int | None = None) -> None:
        call = inspect.signature(pipeline.__call__).parameters
        reason = _why_not(pipeline, call)
        if reason:
            raise ConfigError(f"{type(pipeline).__name__} {reason}; use Stable Diffusion 1.x, 2.x or XL")
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self._lock = pipeline, threading.Lock()
        self.has_pooled = "pooled_prompt_embeds" in call
        self.sampling = sampling or Sampling(call["num_inference_steps"].default, call["guidance_scale"].default)
        height, width = self.picture_size
        self.pictures_at_once = pictures_at_once or min(max(_PIXELS_AT_ONCE // (height * width), 1), _MAX_AT_ONCE)

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) in pixels, as the pipeline draws by default."""
        size, scale = self.pipeline.unet.config.sample_size, self.pipeline.vae_scale_factor
        height, width = (size, size) if isinstance(size, int) else size
        return height * scale, width * scale

    @property
    def conditioning_shape(self) -> tuple[int, int]:
        """(L, C) of the sequences it draws from."""
        sequence, pooled = self._unconditional
        length, width = (sequence if pooled is None else pack_pooled(sequence, pooled)).shape[1:]
        return length, width

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """float[B, L, C]: what the pipeline's own text encoder makes of prompts; long ones lose their end."""
        encoded = self._encode(list(prompts))
        return encoded[0] if not self.has_pooled else pack_pooled(encoded[0], encoded[2])

    def draw(
        self,
        conditioning: Tensor,
        seeds: Sequence[int],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        progress: Progress | None = None,
    ) -> list[Image.Image | None]:
        """A picture for each sequence, from the seed at the same place; None where the safety checker withheld it.

        Args:
            conditioning: float[B, L, C], any device and dtype.
            num_inference_steps, guidance_scale: None takes `self.sampling`'s.
            progress: called after every step with (steps done, steps in all).

        Raises:
            ShapeError: sequences of another shape than `conditioning_shape`, or not as many as seeds.
            GenerationError: steps or guidance out of range.
        """
        if conditioning.shape[1:] != self.conditioning_shape or len(conditioning) != len(seeds):
            raise ShapeError(
                f"{len(seeds)} pictures are drawn from ({len(seeds)}, {self.conditioning_shape[0]}, "
                f"{self.conditioning_shape[1]}) numbers, got {tuple(conditioning.shape)}"
            )
        sampling = Sampling(
            self.sampling.num_inference_steps if num_inference_steps is None else num_inference_steps,
            self.sampling.guidance_scale if guidance_scale is None else guidance_scale,
        )
        parts = [slice(at, at + self.pictures_at_once) for at in range(0, len(seeds), self.pictures_at_once)]
        drawn: list[Image.Image | None] = []
        for number, part in enumerate(parts):
            report = None if progress is None else _StepReport(progress, number, len(parts))
            with self._lock:
                drawn += self._draw_part(conditioning[part], seeds[part], sampling, report)
        return drawn

    def _draw_part(
        self, conditioning: Tensor, seeds: Sequence[int], sampling: Sampling, report: _StepReport | None
    ) -> list[Image.Image | None]:
        result = self.pipeline(
            **self._embeddings(conditioning),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
            callback_on_step_end=report,
        )
        is_withheld = getattr(result, "nsfw_content_detected", None) or [False] * len(seeds)
        return [None if withheld else image for image, withheld in zip(result.images, is_withheld, strict=True)]

    def _embeddings(self, conditioning: Tensor) -> dict[str, Tensor]:
        sequence, pooled = self._unconditional
        given = conditioning.to(sequence)
        if pooled is None:
            return {"prompt_embeds": given, "negative_prompt_embeds": sequence.expand_as(given)}
        given, given_pooled = unpack_pooled(given, pooled.shape[-1])
        return {
            "prompt_embeds": given,
            "negative_prompt_embeds": sequence.expand_as(given),
            "pooled_prompt_embeds": given_pooled,
            "negative_pooled_prompt_embeds": pooled.expand_as(given_pooled),
        }

    @cached_property
    def _unconditional(self) -> tuple[Tensor, Tensor | None]:
        """float[1, L, C] and float[1, P] of no prompt, without the pooled rows; computed once."""
        encoded = self._encode([""])
        return encoded[1], encoded[3] if self.has_pooled else None

    @torch.no_grad()
    def _encode(self, prompts: list[str]) -> tuple[Tensor, ...]:
        """(sequences, unconditional sequences[, pooled, unconditional pooled])."""
        device = self.pipeline.device
        return self.pipeline.encode_prompt(
            prompt=prompts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=True
        )


def _why_not(pipeline: Any, call: Mapping[str, Any]) -> str:
    """Why a pipeline cannot be driven by a sequence; nothing when it can."""
    lacking = [name for name in _NEEDED if name not in call]
    parts = [name for name in ("unet", "vae") if not hasattr(pipeline, name)]
    if lacking or parts:
        return f"has no {', '.join(lacking + parts)}"
    if "image" in call:
        return "changes pictures instead of drawing them"
    return "needs attention masks beside the sequence" if "prompt_attention_mask" in call else ""


class _StepReport:
    """Turns the steps of one of several parts into (steps done, steps in all)."""

    def __init__(self, progress: Progress, part: int, num_parts: int) -> None:
        self.progress, self.part, self.num_parts = progress, part, num_parts

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        in_a_part = pipeline.num_timesteps  # not num_inference_steps: PNDM takes one more
        self.progress(self.part * in_a_part + step + 1, self.num_parts * in_a_part)
        return tensors


def load_drawer(
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    scheduler: str | None = None,
    pictures_at_once: int | None = None,
) -> DiffusionDrawer:
    """Load a pipeline to draw with.

    Its safety checker comes with it where it has one. Weights are read from safetensors only.

    Args:
        name: local folder or hub name. A folder may say in `sampling.json` how it wants to be sampled.
        scheduler: one of `SCHEDULERS`, set up from the pipeline's own scheduler; None keeps that one.
        pictures_at_once: as `DiffusionDrawer`.

    Raises:
        ConfigError: nothing loadable there, or a pipeline that cannot be driven by a sequence.
        UnknownNameError: no such scheduler.
    """
    import diffusers  # slow to import, needed only to draw

    if scheduler is not None:
        require_known("scheduler", scheduler, SCHEDULERS)
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(name, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load the diffusion model {name!r}: {error}; give a pipeline's local folder or hub name"
        ) from error
    if scheduler is not None:
        kind = getattr(diffusers, SCHEDULERS[scheduler])
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    for model in (getattr(pipeline, part, None) for part in ("unet", "vae")):
        if model is not None:
            model.to(memory_format=torch.channels_last)  # what convolutions are fastest with: 15 % on a CPU
    return DiffusionDrawer(pipeline.to(device), read_sampling(Path(name)), pictures_at_once)


def read_sampling(folder: Path) -> Sampling | None:
    """The folder's `sampling.json`; None where there is none.

    Raises:
        ConfigError: it is not JSON, or says something else.
    """
    path = folder / SAMPLING_FILE
    if not path.is_file():
        return None
    try:
        return from_dict(Sampling, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} must hold num_inference_steps and guidance_scale: {error}") from error


def write_sampling(folder: Path, sampling: Sampling) -> None:
    """Say in a pipeline's folder how it wants to be sampled."""
    (folder / SAMPLING_FILE).write_text(json.dumps(to_dict(sampling)) + "\n", encoding="utf-8")
