"""What a validation shows of the model beside its scores: pictures put into words, and pictures drawn.

Shape legend: B = pictures, F = pooled feature width, L x C = conditioning sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from gill.backbones import DiffusionDrawer, load_drawer
from gill.models.gill.decoding import Decoder
from gill.models.gill.encoding import GillTokenizer
from gill.models.gill.model import GillModel
from gill.models.gill.prompts import PromptLayout, Prompts
from gill.models.gill.replies import Endings, transcribe
from gill.types import GenerationOptions

_PIPELINE_CARD = "model_index.json"


class GillIllustrator:
    """Captions pictures greedily and draws conditioning sequences; leaves the model's mode as it is.

    Args:
        prompt: words every caption begins with; they are not part of the answer.
        max_words: tokens of a caption at most; fewer where the language model has no positions for them.
        num_inference_steps, guidance_scale: of the diffusion model; None takes its own.
    """

    def __init__(
        self,
        model: GillModel,
        tokenizer: GillTokenizer,
        prompt: str = "",
        max_words: int = 32,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> None:
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.options = GenerationOptions(num_words=max_words, max_num_images=0)
        self.num_inference_steps, self.guidance_scale = num_inference_steps, guidance_scale

    def describe(self, images: Tensor) -> list[str]:
        """A caption of each picture, float[B, F] features or float[B, 3, H, W] pixels."""
        features_BF = self.model.image_features(images)
        layout = PromptLayout(self.model, self.tokenizer, transform=None)
        prompts = layout.lay_out([[feature, self.prompt] for feature in features_BF])
        endings = Endings(self.tokenizer, stops_at_newline=True)
        generators = [torch.Generator()] * len(features_BF)  # greedy: nothing is drawn from them
        steps = Decoder(self.model, endings, self._options_after(prompts)).steps(prompts, generators)
        replies = transcribe(endings, steps, len(features_BF))
        return ["".join(text for text in reply.pieces if isinstance(text, str)).strip() for reply in replies]

    def _options_after(self, prompts: Prompts) -> GenerationOptions:
        limit = self.model.language.max_positions
        if limit is None:
            return self.options
        room = limit - max(map(len, prompts.ids))
        return replace(self.options, num_words=max(min(self.options.num_words, room), 1))

    def draw(self, conditioning: Tensor, seeds: Sequence[int]) -> list[Image.Image | None]:
        """A picture for each float[L, C] sequence, each from its own seed; none where no diffusion model lies.

        Only a local folder with a whole pipeline is used: a validation does not start a download.
        """
        if not (Path(self.model.config.diffusion) / _PIPELINE_CARD).is_file():
            return []
        return self._drawer.draw(conditioning, seeds, self.num_inference_steps, self.guidance_scale)

    @cached_property
    def _drawer(self) -> DiffusionDrawer:
        config = self.model.config
        return load_drawer(config.diffusion, self.model.device, getattr(torch, config.frozen_dtype))
