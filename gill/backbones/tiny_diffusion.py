"""Tiny random text-to-image pipelines: the real architectures at toy sizes, for tests and the debug preset.

"sd" is conditioned by the text encoder of `tiny_conditioning_encoder(seed)`, so that a model trained with "tiny" can
draw; "sdxl" has two text encoders and a pooled vector narrower than a row. Pictures are 16 x 16.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from gill.backbones.diffusion import DiffusionDrawer, Sampling
from gill.backbones.tiny import (
    CONDITIONING_LENGTH,
    CONDITIONING_WIDTH,
    VOCABULARY,
    tiny_conditioning_encoder,
    tiny_tokenizer,
)
from gill.config import require_known

PIPELINES = ("sd", "sdxl")
_SECOND_WIDTH, _POOLED_WIDTH, _TIME_WIDTH = 8, 20, 8
_LATENT_SIZE, _CHANNELS = 8, (16, 32)
_SAMPLING = Sampling(num_inference_steps=2, guidance_scale=3.0)


def tiny_drawer(kind: str = "sd", seed: int = 0, dtype: torch.dtype = torch.float32) -> DiffusionDrawer:
    """A random pipeline of one of `PIPELINES`, two steps by default.

    Raises:
        UnknownNameError: no such pipeline.
    """
    require_known("tiny pipeline", kind, PIPELINES)
    return DiffusionDrawer(tiny_pipeline(kind, seed).to(dtype=dtype), _SAMPLING)


def tiny_pipeline(kind: str = "sd", seed: int = 0) -> Any:
    """The same as a pipeline of diffusers, float32."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline  # slow to import

    tokenizer, first = _tokenizer(), tiny_conditioning_encoder(seed).encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            "vae": _vae(),
            "text_encoder": first,
            "tokenizer": tokenizer,
            "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        }
        if kind == "sdxl":
            xl = {"text_encoder_2": _second_encoder(), "tokenizer_2": tokenizer, "unet": _unet(is_xl=True)}
            return StableDiffusionXLPipeline(**parts, **xl, force_zeros_for_empty_prompt=True, add_watermarker=False)
        safety = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return StableDiffusionPipeline(**parts, **safety, unet=_unet(is_xl=False))


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = CONDITIONING_LENGTH
    return tokenizer


def _second_encoder() -> CLIPTextModelWithProjection:
    sizes = {"hidden_size": _SECOND_WIDTH, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": VOCABULARY, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    config = CLIPTextConfig(**sizes, **ids, max_position_embeddings=CONDITIONING_LENGTH, projection_dim=_POOLED_WIDTH)
    return CLIPTextModelWithProjection(config).eval()


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=2 * _LATENT_SIZE,
    ).eval()


def _unet(is_xl: bool) -> Any:
    from diffusers import UNet2DConditionModel

    added: dict[str, Any] = {}
    if is_xl:  # six numbers of size and crop join the pooled vector beside the time
        joined = 6 * _TIME_WIDTH + _POOLED_WIDTH
        added = {"addition_embed_type": "text_time", "addition_time_embed_dim": _TIME_WIDTH}
        added["projection_class_embeddings_input_dim"] = joined
    return UNet2DConditionModel(
        sample_size=_LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=CONDITIONING_WIDTH + (_SECOND_WIDTH if is_xl else 0),
        attention_head_dim=8,
        norm_num_groups=8,
        **added,
    ).eval()
