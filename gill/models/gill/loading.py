"""Build a model from its settings: load the backbones, read their widths, start what trains."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gill.backbones import (
    ConditioningEncoder,
    LanguageModel,
    VisionTower,
    load_conditioning_encoder,
    load_language_model,
    load_vision_tower,
    tiny_conditioning_encoder,
    tiny_language_model,
    tiny_vision_tower,
)
from gill.errors import ConfigError
from gill.models.gill.config import GillConfig
from gill.models.gill.encoding import GillEncoder, GillTokenizer, is_tiny, load_encoder, load_tokenizer
from gill.models.gill.model import GillModel
from gill.models.gill.sequence import Vocabulary
from gill.models.gill.task import GillTask
from gill.models.gill.whitening import read_whitening


@dataclass(frozen=True)
class Backbones:
    """The frozen parts; `conditioning` is None when targets are stored or the model does not draw."""

    language: LanguageModel
    vision: VisionTower
    conditioning: ConditioningEncoder | None


def load_backbones(
    config: GillConfig, device: torch.device | str = "cpu", quantization: str = "", has_targets: bool = True
) -> Backbones:
    """Load what `config` names, in `config.frozen_dtype`, on `device`.

    Args:
        quantization: of the language model, as `load_language_model`; random tiny ones have none.
        has_targets: False leaves out the text encoder: it makes training targets, and no answer needs it.

    Raises:
        ConfigError: a name that leads nowhere, or quantization that is not installed.
    """
    dtype = getattr(torch, config.frozen_dtype)
    if is_tiny(config.language):
        language = tiny_language_model(config.language.partition(":")[2] or "opt", dtype=dtype).to(device)
    else:
        language = load_language_model(config.language, device, dtype, config.attention, quantization)
    conditioning = _load_conditioning(config, device, dtype) if has_targets else None
    return Backbones(language, load_vision(config, device), conditioning)


def load_vision(config: GillConfig, device: torch.device | str = "cpu") -> VisionTower:
    """The vision tower alone.

    Raises:
        ConfigError: as `load_backbones`.
    """
    dtype = getattr(torch, config.frozen_dtype)
    if is_tiny(config.vision):
        return tiny_vision_tower(dtype=dtype).to(device)
    return load_vision_tower(config.vision, device, dtype, config.attention)


def build_model(
    config: GillConfig,
    backbones: Backbones,
    tokenizer: GillTokenizer,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> GillModel:
    """A model around loaded backbones; what trains starts from `seed`, in float32 (float64 with float64 backbones).

    Raises:
        ConfigError: sizes that contradict the diffusion model or the vision tower, or are unknown.
    """
    shape = conditioning_shape(config, backbones.conditioning)
    if shape is not None:  # a saved model tells its own sizes: it is loaded without the text encoder that gave them
        config = replace(config, conditioning_length=shape[0], conditioning_width=shape[1])
    if config.image_size not in (None, backbones.vision.image_size):
        raise ConfigError(
            f"image_size={config.image_size}: {config.vision} reads {backbones.vision.image_size}; leave it out"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GillModel(
            config,
            backbones.language,
            tokenizer.vocabulary,
            backbones.vision.feature_width,
            shape,
            backbones.vision,
            backbones.conditioning,
            read_whitening(config.whitening, backbones.vision.feature_width) if config.whitening else None,
        )
    _start_from_words(model, tokenizer)
    return set_trainable_dtype(model, torch.float64 if config.frozen_dtype == "float64" else torch.float32).to(device)


@torch.no_grad()
def _start_from_words(model: GillModel, tokenizer: GillTokenizer) -> None:
    """Give trainable tokens the embeddings of words to start from (Lester et al. 2021, arXiv:2104.08691, 3.2)."""
    config, prefix = model.config, model.visual_prefix.linear
    img_words, visual_words = tokenizer.words(config.img_words), tokenizer.words(config.visual_words)
    _require_room("img_words", img_words, config.num_img_tokens - 1)
    _require_room("visual_words", visual_words, config.num_visual_tokens)
    model.img_tokens.input_rows[1 : 1 + len(img_words)] = _embeddings(model, img_words)
    rows = prefix.bias.unflatten(0, (config.num_visual_tokens, -1))
    rows[: len(visual_words)] = _embeddings(model, visual_words)
    prefix.weight.unflatten(0, (config.num_visual_tokens, -1))[: len(visual_words)] = 0


def _embeddings(model: GillModel, ids: list[int]) -> Tensor:
    """float[len(ids), D] on the language model's device, where the rest of the model need not be yet."""
    word_ids = torch.tensor(ids, dtype=torch.long, device=model.language.table.device)
    return model.language.embed(word_ids).to(model.trainable_dtype)


def _require_room(name: str, ids: list[int], room: int) -> None:
    if len(ids) > room:
        raise ConfigError(
            f"{name} are {len(ids)} tokens of this language model, there is room for {room}; add tokens, or leave "
            f"words out (--set {name}= leaves out all)"
        )


def build(
    config: GillConfig, device: torch.device | str = "cpu", max_tokens: int = 32, seed: int = 0
) -> tuple[GillTask, GillEncoder]:
    """Task and encoder of one set of settings; see `gill.types.Family`.

    Raises:
        ConfigError: as `load_backbones` and `build_model`, or texts too long for the language model.
    """
    backbones = load_backbones(config, device)
    encoder = load_encoder(config, len(backbones.language.table), max_tokens)
    _require_positions(config, backbones.language, encoder.tokenizer.vocabulary, max_tokens)
    return GillTask(build_model(config, backbones, encoder.tokenizer, device, seed)), encoder


def _require_positions(config: GillConfig, language: LanguageModel, vocabulary: Vocabulary, max_tokens: int) -> None:
    """The longest row is a text that ends in [IMG] tokens, or a picture and that text without them."""
    num_picture_ids = vocabulary.picture_ids(torch.arange(1)).shape[1]
    more = len(vocabulary.prefix) + max(num_picture_ids - config.num_img_tokens, 0)
    limit = language.max_positions
    if limit is not None and max_tokens + more > limit:
        raise ConfigError(
            f"{config.language} reads {limit} tokens, and a picture with a text of up to max_tokens={max_tokens} has "
            f"{max_tokens + more}; --max-len {limit - more} fits"
        )


def load_model(
    config: GillConfig, device: torch.device | str = "cpu", seed: int = 0
) -> tuple[GillModel, GillTokenizer]:
    """Model and tokenizer of one set of settings, with fresh trainable parts."""
    backbones = load_backbones(config, device)
    tokenizer = load_tokenizer(config, len(backbones.language.table))
    return build_model(config, backbones, tokenizer, device, seed), tokenizer


def conditioning_shape(config: GillConfig, encoder: ConditioningEncoder | None) -> tuple[int, int] | None:
    """(L, C) of the mapper, None for a model that does not draw.

    Raises:
        ConfigError: settings that contradict the encoder, or neither settings nor encoder.
    """
    if not config.has_mapper:
        return None
    asked = (config.conditioning_length, config.conditioning_width)
    if encoder is None:
        if None in asked:
            raise ConfigError(
                "without a diffusion model that makes the targets, conditioning_length and conditioning_width must be "
                "set, and targets be stored"
            )
        return asked  # type: ignore[return-value]
    found = (encoder.length, encoder.width)
    if any(wanted not in (None, real) for wanted, real in zip(asked, found, strict=True)):
        raise ConfigError(
            f"conditioning of {asked} was asked for, {config.diffusion} gives {found}; leave the settings out"
        )
    return found


def set_trainable_dtype(model: GillModel, dtype: torch.dtype) -> GillModel:
    """Cast what trains; frozen parts keep theirs. Returns the model."""
    for module in (model.img_tokens, model.visual_prefix, model.retrieval_heads, model.mapper):
        if module is not None:
            module.to(dtype)
    model.logit_scale = nn.Parameter(model.logit_scale.detach().to(dtype))
    return model


def _load_conditioning(
    config: GillConfig, device: torch.device | str, dtype: torch.dtype
) -> ConditioningEncoder | None:
    if not config.makes_targets:
        return None
    if is_tiny(config.diffusion):
        return tiny_conditioning_encoder(dtype=dtype).to(device)
    return load_conditioning_encoder(config.diffusion, device, dtype)
