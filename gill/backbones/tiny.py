"""Tiny random backbones: the real architectures at toy sizes, for tests and the debug preset. No files, no network.

Language families: opt, opt-projected (word_embed_proj_dim), opt-post-norm (as OPT-350m), gpt2, gpt-neox, llama (untied
head, grouped attention) and qwen2. Weights depend on the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from gill.backbones.language import LanguageModel
from gill.backbones.text_encoder import ConditioningEncoder, ConditioningTokenizer
from gill.backbones.vision import ImageTransform, VisionTower, transformers_tower
from gill.config import require_known

WIDTH, NUM_LAYERS, NUM_HEADS, MAX_POSITIONS = 32, 2, 4, 256
IMAGE_SIZE, PATCH_SIZE, VISION_WIDTH = 32, 8, 24
CONDITIONING_LENGTH, CONDITIONING_WIDTH = 12, 16
_SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]  # OPT's order: bos = eos = 2, pad = 1
VOCABULARY = 268  # special tokens, 256 bytes, and rows to spare as in OPT


def _opt(**changes: object) -> PreTrainedModel:
    settings = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "ffn_dim": 2 * WIDTH}
    sizes = {
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": NUM_HEADS,
        "max_position_embeddings": MAX_POSITIONS,
    }
    return OPTForCausalLM(OPTConfig(**{**settings, **sizes, **changes}))


def _gpt2() -> PreTrainedModel:
    sizes = {"n_embd": WIDTH, "n_layer": NUM_LAYERS, "n_head": NUM_HEADS, "n_positions": MAX_POSITIONS}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, bos_token_id=2, eos_token_id=2, **sizes))


def _rotary_sizes() -> dict[str, int]:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "bos_token_id": 2}
    return {**sizes, "num_hidden_layers": NUM_LAYERS, "num_attention_heads": NUM_HEADS, "eos_token_id": 2}


def _gpt_neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(GPTNeoXConfig(max_position_embeddings=MAX_POSITIONS, **_rotary_sizes()))


def _llama() -> PreTrainedModel:
    config = LlamaConfig(
        num_key_value_heads=2, max_position_embeddings=MAX_POSITIONS, tie_word_embeddings=False, **_rotary_sizes()
    )
    return LlamaForCausalLM(config)


def _qwen2() -> PreTrainedModel:
    config = Qwen2Config(
        num_key_value_heads=2, max_position_embeddings=MAX_POSITIONS, tie_word_embeddings=True, **_rotary_sizes()
    )
    return Qwen2ForCausalLM(config)


LANGUAGE_FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "opt": _opt,
    "opt-projected": lambda: _opt(word_embed_proj_dim=WIDTH // 2),
    "opt-post-norm": lambda: _opt(word_embed_proj_dim=WIDTH // 2, do_layer_norm_before=False),
    "gpt2": _gpt2,
    "gpt-neox": _gpt_neox,
    "llama": _llama,
    "qwen2": _qwen2,
}


def tiny_language_model(family: str = "opt", seed: int = 0, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A random language model of one of `LANGUAGE_FAMILIES`.

    Raises:
        UnknownNameError: no such family.
    """
    require_known("tiny language model", family, LANGUAGE_FAMILIES)
    return LanguageModel(_seeded(LANGUAGE_FAMILIES[family], seed).to(dtype))


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte; `</s>` opens every text, as OPT's does."""
    words = _SPECIAL_TOKENS + sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
    names = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def tiny_vision_tower(seed: int = 0, dtype: torch.dtype = torch.float32) -> VisionTower:
    """A random CLIP vision tower."""
    config = CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=2 * VISION_WIDTH,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    return transformers_tower(_seeded(lambda: CLIPVisionModel(config), seed).to(dtype))


def tiny_image_transform() -> ImageTransform:
    """Squash to the tower's size and scale to [-1, 1]."""
    return ImageTransform(_squash)


def tiny_conditioning_encoder(seed: int = 0, dtype: torch.dtype = torch.float32) -> ConditioningEncoder:
    """A random CLIP text encoder."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=CONDITIONING_WIDTH,
        intermediate_size=2 * CONDITIONING_WIDTH,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        max_position_embeddings=CONDITIONING_LENGTH,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    return ConditioningEncoder(_seeded(lambda: CLIPTextModel(config), seed).to(dtype), CONDITIONING_LENGTH)


def tiny_conditioning_tokenizer() -> ConditioningTokenizer:
    """The tiny tokenizer at the tiny encoder's length."""
    return ConditioningTokenizer(tiny_tokenizer(), CONDITIONING_LENGTH)


def _squash(images: list[Image.Image]) -> Tensor:
    squashed = b"".join(image.resize((IMAGE_SIZE, IMAGE_SIZE)).tobytes() for image in images)
    pixels = torch.frombuffer(bytearray(squashed), dtype=torch.uint8)
    return pixels.view(-1, IMAGE_SIZE, IMAGE_SIZE, 3).permute(0, 3, 1, 2).float() / 127.5 - 1


def _seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
