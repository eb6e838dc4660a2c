"""What the training benchmarks run on: backbones of real shapes with random weights, and one batch.

Shape legend: B = captions, R = [IMG] tokens, V = visual tokens a picture, L x C = conditioning sequence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, CLIPVisionConfig, OPTConfig

from gill.backbones import LanguageModel, transformers_tower
from gill.models.gill import GillConfig, GillModel, GillTask, Vocabulary
from gill.types import Batch, Sample

_BOS, FIRST_WORD = 2, 4  # of OPT's tokenizer


@dataclass(frozen=True)
class Sizes:
    """One scale of the benchmark.

    Attributes:
        language, vision: settings of an OPT and of a CLIP vision tower.
        num_words: rows of the word table in use; [IMG0] is the next id.
        config: of the GILL model around them; conditioning sizes are set.
        caption_lengths: tokens of each caption, beginning of sequence included.
        max_tokens: what the original pads caption and [IMG] tokens to.
        num_rounds: timed steps of each kind.
    """

    language: Mapping[str, int]
    vision: Mapping[str, int]
    num_words: int
    config: GillConfig
    caption_lengths: tuple[int, ...]
    max_tokens: int
    num_rounds: int


# OPT-125m and CLIP ViT-B/16 with the paper's mapper and Stable Diffusion 1.5's conditioning: `gill-opt-125m-cpu`.
FULL = Sizes(
    language={},  # the defaults of OPTConfig are OPT-125m
    vision={"patch_size": 16},  # the other defaults are ViT-B
    num_words=50266,
    config=GillConfig(conditioning_length=77, conditioning_width=768),
    caption_lengths=(13, 8, 15, 19, 11, 14, 9, 17, 13, 12, 16, 10, 18, 14, 13, 15),
    max_tokens=32,
    num_rounds=5,
)
# The same proportions in milliseconds: shows that everything runs, and its counts are near those of FULL.
TINY = Sizes(
    language={
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "ffn_dim": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 4096,
        "max_position_embeddings": 128,
    },
    vision={
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 4,
    },
    num_words=4090,
    config=GillConfig(mapper_width=32, mapper_layers=2, mapper_heads=2, conditioning_length=77, conditioning_width=64),
    caption_lengths=FULL.caption_lengths,
    max_tokens=FULL.max_tokens,
    num_rounds=2,
)


@dataclass(frozen=True)
class Setting:
    """A task, and the same batch in the three forms it can train on: stored features, joined in pairs, pixels."""

    sizes: Sizes
    task: GillTask
    stored: Batch
    paired: Batch
    pixels: Batch


def build_setting(
    sizes: Sizes, seed: int = 0, device: torch.device | None = None, frozen_dtype: torch.dtype = torch.float32
) -> Setting:
    """Everything random and of `sizes`; what trains is float32. No device is the CPU."""
    device = device or torch.device("cpu")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        with device:  # where the weights are drawn: billions of them take long on a host
            task = GillTask(build_model(sizes, frozen_dtype))
        samples = [_sample(sizes, task.model, length) for length in sizes.caption_lengths]
    pixels = Batch.from_samples(samples).to(device)
    stored = dataclasses.replace(pixels, images=task.model.image_features(pixels.images))
    return Setting(sizes, task, stored, dataclasses.replace(stored, is_paired=True), pixels)


def build_model(sizes: Sizes, frozen_dtype: torch.dtype = torch.float32) -> GillModel:
    """OPT, CLIP and GILL of `sizes`, all weights random."""
    language = LanguageModel(AutoModelForCausalLM.from_config(OPTConfig(**sizes.language), dtype=frozen_dtype))
    vision = transformers_tower(AutoModel.from_config(CLIPVisionConfig(**sizes.vision), dtype=frozen_dtype))
    config = sizes.config
    vocabulary = Vocabulary(sizes.num_words, config.num_img_tokens, config.num_visual_tokens)
    shape = _conditioning_shape(config)
    return GillModel(config, language, vocabulary, vision.feature_width, shape, vision)


def _conditioning_shape(config: GillConfig) -> tuple[int, int]:
    assert config.conditioning_length is not None and config.conditioning_width is not None
    return config.conditioning_length, config.conditioning_width


def _sample(sizes: Sizes, model: GillModel, length: int) -> Sample:
    ids = torch.randint(FIRST_WORD, sizes.num_words, (length,))
    ids[0] = _BOS
    return Sample(ids, _random_image(model), conditioning_target=torch.randn(_conditioning_shape(sizes.config)))


def _random_image(model: GillModel) -> Tensor:
    assert model.vision is not None
    return torch.randn(3, model.vision.image_size, model.vision.image_size)
