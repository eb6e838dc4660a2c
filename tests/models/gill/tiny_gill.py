"""A tiny GILL of any language family, and batches for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from gill.backbones import (
    ConditioningEncoder,
    tiny_conditioning_encoder,
    tiny_image_transform,
    tiny_language_model,
    tiny_tokenizer,
    tiny_vision_tower,
)
from gill.models.gill import (
    Backbones,
    GillConfig,
    GillGenerator,
    GillModel,
    GillTask,
    GillTokenizer,
    build_model,
    find_preset,
)
from gill.types import IMAGE_SLOT, Batch, CaptionRecord, Sample

DEBUG = find_preset("debug").model
LENGTHS = (9, 4, 2, 12)  # beginning of sequence included; the third is the shortest caption there is


def tiny_task(family: str = "opt", dtype: str = "float64", **changes: object) -> GillTask:
    """A task around random backbones."""
    return GillTask(tiny_model(family, dtype, **changes))


def tiny_model(family: str = "opt", dtype: str = "float64", **changes: object) -> GillModel:
    """A model around random backbones."""
    config = dataclasses.replace(DEBUG, language=f"tiny:{family}", frozen_dtype=dtype, **changes)
    kind = getattr(torch, dtype)
    conditioning: ConditioningEncoder | None = None
    if config.has_mapper and config.diffusion:
        conditioning = tiny_conditioning_encoder(dtype=kind)
    backbones = Backbones(tiny_language_model(family, dtype=kind), tiny_vision_tower(dtype=kind), conditioning)
    return build_model(config, backbones, tiny_gill_tokenizer(config, backbones), seed=1)


def tiny_gill_tokenizer(config: GillConfig, backbones: Backbones) -> GillTokenizer:
    """The byte tokenizer with the config's [IMG] tokens."""
    return GillTokenizer(tiny_tokenizer(), config, len(backbones.language.table))


def tiny_batch(model: GillModel, is_paired: bool = False, context_at: tuple[int, ...] = (), seed: int = 3) -> Batch:
    """Four samples of unequal length with stored features; those in `context_at` hold pictures in their text."""
    source = torch.Generator().manual_seed(seed)
    dtype, width = model.trainable_dtype, model.retrieval_heads.image.in_features
    samples = []
    for number, length in enumerate(LENGTHS):
        ids = torch.randint(4, 250, (length + 4 * (number in context_at),), generator=source)
        ids[0] = 2
        if number in context_at:
            ids[[1, 4]] = IMAGE_SLOT
        num_pictures = int((ids == IMAGE_SLOT).sum())
        features = torch.randn(1 + num_pictures, width, generator=source, dtype=torch.float64).to(dtype)
        conditioning_ids = torch.randint(4, 250, (12,), generator=source) if model.conditioning is not None else None
        samples.append(
            Sample(
                ids, features[0], tuple(features[1:]), None, conditioning_ids, CaptionRecord("x", Path(f"{number}.png"))
            )
        )
    return Batch.from_samples(samples, is_paired)


def tiny_generator(family: str = "opt", dtype: str = "float64", **parts: object) -> GillGenerator:
    """A generator around random backbones; `parts` as `GillGenerator`, the rest as `tiny_model`."""
    names = ("index", "fetcher", "drawer", "decision", "ranker")
    model = tiny_model(family, dtype, **{name: value for name, value in parts.items() if name not in names})
    backbones = Backbones(model.language, model.vision, model.conditioning)  # type: ignore[arg-type]
    around = {name: value for name, value in parts.items() if name in names}
    return GillGenerator(model, tiny_gill_tokenizer(model.config, backbones), tiny_image_transform(), **around)  # type: ignore[arg-type]
