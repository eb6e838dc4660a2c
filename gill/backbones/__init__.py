"""Pre-trained networks, frozen, wrapped in as little as possible, and tiny random versions of each."""

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

from gill.backbones.cache import decoding_cache, reading_cache
from gill.backbones.clip import DEFAULT_CLIP, Clip
from gill.backbones.diffusion import SCHEDULERS, DiffusionDrawer, Sampling, load_drawer, write_sampling
from gill.backbones.language import LanguageModel, load_language_model, load_language_tokenizer
from gill.backbones.pooled import pack_pooled, unpack_pooled
from gill.backbones.text_encoder import (
    ConditioningEncoder,
    ConditioningTokenizer,
    load_conditioning_encoder,
    load_conditioning_tokenizer,
)
from gill.backbones.tiny import (
    LANGUAGE_FAMILIES,
    tiny_conditioning_encoder,
    tiny_conditioning_tokenizer,
    tiny_image_transform,
    tiny_language_model,
    tiny_tokenizer,
    tiny_vision_tower,
)
from gill.backbones.tiny_diffusion import tiny_drawer, tiny_pipeline
from gill.backbones.vision import (
    ImageTransform,
    VisionTower,
    load_image_transform,
    load_vision_tower,
    open_clip_tower,
    transformers_tower,
)

__all__ = [
    "DEFAULT_CLIP",
    "LANGUAGE_FAMILIES",
    "SCHEDULERS",
    "Clip",
    "ConditioningEncoder",
    "ConditioningTokenizer",
    "DiffusionDrawer",
    "ImageTransform",
    "LanguageModel",
    "Sampling",
    "VisionTower",
    "decoding_cache",
    "load_conditioning_encoder",
    "load_conditioning_tokenizer",
    "load_drawer",
    "load_image_transform",
    "load_language_model",
    "load_language_tokenizer",
    "load_vision_tower",
    "open_clip_tower",
    "pack_pooled",
    "reading_cache",
    "tiny_conditioning_encoder",
    "tiny_conditioning_tokenizer",
    "tiny_drawer",
    "tiny_image_transform",
    "tiny_language_model",
    "tiny_pipeline",
    "tiny_tokenizer",
    "tiny_vision_tower",
    "transformers_tower",
    "unpack_pooled",
    "write_sampling",
]
