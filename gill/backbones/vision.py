"""Frozen CLIP vision towers from `transformers` or `open_clip`: pixels to one pooled feature.

The feature is the class token after the last layer norm, before CLIP's projection, as the originals use it.

Shape legend: B = images, F = feature width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, CLIPVisionModel
from transformers.utils import logging

from gill.backbones.class_token import class_token
from gill.errors import ConfigError, ShapeError
from gill.parameters import FrozenModule, freeze

OPEN_CLIP_PREFIX = "open_clip:"  # e.g. "open_clip:ViT-L-14/openai" or "open_clip:ViT-B-32//path/to/weights.safetensors"


class VisionTower(FrozenModule):
    """A frozen tower: float[B, 3, H, W] normalised pixels -> float[B, F]."""

    def __init__(self, tower: nn.Module, feature_width: int, image_size: int) -> None:
        super().__init__()
        self.tower = freeze(tower)
        self.feature_width, self.image_size = feature_width, image_size

    @torch.no_grad()
    def forward(self, pixel_values: Tensor) -> Tensor:
        """float[B, F], no gradient.

        Raises:
            ShapeError: pictures of another size than the tower's.
        """
        if tuple(pixel_values.shape[1:]) != (3, self.image_size, self.image_size):
            raise ShapeError(
                f"the vision tower reads 3 x {self.image_size} x {self.image_size} pixels, got "
                f"{tuple(pixel_values.shape[1:])}; preprocess pictures with load_image_transform of the same name"
            )
        pixel_values = pixel_values.to(next(self.tower.parameters()).dtype)
        if isinstance(self.tower, CLIPVisionModel):
            return class_token(self.tower, pixel_values)
        return self.tower(pixel_values)


class ImageTransform:
    """Pictures of any modes and sizes to normalised pixels.

    Args:
        transform: one or more RGB pictures to float[3, H, W] each.
    """

    def __init__(self, transform: Callable[[list[Image.Image]], Sequence[Tensor] | Tensor]) -> None:
        self._transform = transform

    def __call__(self, image: Image.Image) -> Tensor:
        """float[3, H, W] of one picture."""
        return self.batch([image])[0]

    def batch(self, images: Sequence[Image.Image]) -> Tensor:
        """float[B, 3, H, W] of one or more pictures."""
        pixels = self._transform([image.convert("RGB") for image in images])
        return pixels if isinstance(pixels, Tensor) else torch.stack(list(pixels))


def load_vision_tower(
    name: str, device: torch.device | str, dtype: torch.dtype, attention: str = "sdpa"
) -> VisionTower:
    """Load a frozen vision tower.

    Args:
        name: hub name or folder of a CLIP (whole or vision only), or "open_clip:ARCHITECTURE/PRETRAINED".
        device, dtype: where and how it is kept.
        attention: of a `transformers` tower.

    Raises:
        ConfigError: nothing loadable there.
    """
    if name.startswith(OPEN_CLIP_PREFIX):
        tower = _create_open_clip(name)[0]
        return open_clip_tower(tower).to(device, dtype)
    try:
        with _quiet():  # a whole CLIP has a text half, which is not wanted here
            tower = CLIPVisionModel.from_pretrained(name, dtype=dtype, attn_implementation=attention)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load the vision tower {name!r}: {error}; give a hub name or a local folder"
        ) from error
    return transformers_tower(tower).to(device)


def transformers_tower(tower: CLIPVisionModel) -> VisionTower:
    """Wrap a `CLIPVisionModel`."""
    return VisionTower(tower, tower.config.hidden_size, tower.config.image_size)


def open_clip_tower(model: nn.Module) -> VisionTower:
    """Wrap the visual half of an `open_clip` model.

    Raises:
        ConfigError: not one of its vision transformers.
    """
    visual: Any = model.visual
    if not hasattr(visual, "ln_post") or not hasattr(visual, "proj"):
        raise ConfigError(f"{type(visual).__name__} is not an open_clip vision transformer; choose a ViT architecture")
    visual.proj = None  # the pooled class token itself, not its projection
    return VisionTower(visual, visual.ln_post.weight.shape[0], _square(visual.image_size))


def load_image_transform(name: str) -> ImageTransform:
    """The preprocessing that belongs to `load_vision_tower(name)`; decoded with Pillow, so it is the same everywhere.

    Raises:
        ConfigError: nothing loadable there.
    """
    if name.startswith(OPEN_CLIP_PREFIX):
        return ImageTransform(partial(_one_by_one, _create_open_clip(name)[1]))
    try:
        processor = AutoImageProcessor.from_pretrained(name, backend="pil")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot load the image preprocessing of {name!r}: {error}") from error
    return ImageTransform(partial(_process, processor))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _process(processor: Any, images: list[Image.Image]) -> Tensor:
    return processor(images=images, return_tensors="pt")["pixel_values"]


def _one_by_one(transform: Callable[[Image.Image], Tensor], images: list[Image.Image]) -> list[Tensor]:
    return [transform(image) for image in images]


def _create_open_clip(name: str) -> tuple[nn.Module, Callable[[Image.Image], Tensor]]:
    import open_clip  # optional dependency, and slow to import

    architecture, _, pretrained = name.removeprefix(OPEN_CLIP_PREFIX).partition("/")
    try:
        model, _, transform = open_clip.create_model_and_transforms(architecture, pretrained or None)
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"cannot load {name!r}: {error}; write open_clip:ARCHITECTURE/PRETRAINED") from error
    return model, transform


def _square(size: int | tuple[int, int]) -> int:
    return size if isinstance(size, int) else size[0]
