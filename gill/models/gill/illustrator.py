"""What a validation shows of the model beside its scores: pictures put into words, and pictures drawn.

Shape legend: B = pictures, V = visual tokens a picture, D = language model width, L x C = conditioning sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache

from gill.backbones import DiffusionDrawer, load_drawer
from gill.models.gill.encoding import GillTokenizer
from gill.models.gill.model import GillModel

_PIPELINE_CARD = "model_index.json"


class GillIllustrator:
    """Captions pictures greedily and draws conditioning sequences.

    Args:
        prompt: words every caption begins with; they are not part of the answer.
        max_words: tokens of a caption at most.
        num_inference_steps, guidance_scale: of the diffusion model.
    """

    def __init__(
        self,
        model: GillModel,
        tokenizer: GillTokenizer,
        prompt: str = "",
        max_words: int = 32,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
    ) -> None:
        self.model, self.tokenizer, self.max_words = model, tokenizer, max_words
        self.prompt_ids = [tokenizer.bos_id, *tokenizer.words(prompt)] if prompt else [tokenizer.bos_id]
        self.num_inference_steps, self.guidance_scale = num_inference_steps, guidance_scale

    @torch.no_grad()
    def describe(self, images: Tensor) -> list[str]:
        """A caption of each picture, float[B, F] features or float[B, 3, H, W] pixels."""
        vocabulary = self.model.vocabulary
        visual_BVD = self.model.visual_prefix(self.model.image_features(images))
        opening = torch.tensor([*vocabulary.prefix, *self.prompt_ids]).expand(len(images), -1)
        ids = torch.cat([vocabulary.picture_ids(torch.arange(len(images))), opening], dim=1)
        cache, said = DynamicCache(), []
        for _ in range(self.max_words):
            hidden = self._read(ids.to(self.model.device), visual_BVD, cache)
            ids = self.model.logits(hidden)[:, : vocabulary.num_words].argmax(-1, keepdim=True)
            said.append(ids.cpu())
        return [self._text(row) for row in torch.cat(said, dim=1).tolist()]

    def draw(self, conditioning: Tensor, seeds: Sequence[int]) -> list[Image.Image | None]:
        """A picture for each float[L, C] sequence, each from its own seed; none where no diffusion model lies.

        Only a local folder with a whole pipeline is used: a validation does not start a download.
        """
        if not (Path(self.model.config.diffusion) / _PIPELINE_CARD).is_file():
            return []
        return self._drawer.draw(conditioning, seeds, self.num_inference_steps, self.guidance_scale)

    @cached_property
    def _drawer(self) -> DiffusionDrawer:
        return load_drawer(self.model.config.diffusion, self.model.device)

    def _read(self, ids: Tensor, visual_BVD: Tensor, cache: DynamicCache) -> Tensor:
        """float[B, D] state at the last of `ids`, which are added to the cache."""
        past, count = cache.get_seq_length(), ids.shape[1]
        positions = torch.arange(past, past + count, device=ids.device)
        sees = positions[:, None] >= torch.arange(past + count, device=ids.device)
        embeddings = self.model.embed(ids, visual_BVD)
        lowest = torch.finfo(embeddings.dtype).min
        mask = torch.zeros(sees.shape, dtype=embeddings.dtype, device=ids.device).masked_fill_(~sees, lowest)
        hidden = self.model.language.hidden_states(
            embeddings, positions.expand(len(ids), -1), mask.expand(len(ids), 1, -1, -1), cache
        )
        return hidden[:, -1]

    def _text(self, ids: list[int]) -> str:
        """The words before the end of sequence, a new line, or the bracket that opens another picture."""
        brackets = self.model.vocabulary.opening
        ends = {self.tokenizer.eos_id, *brackets[:1]}
        stop = next((number for number, token in enumerate(ids) if token in ends), len(ids))
        return self.tokenizer.decode(ids[:stop]).partition("\n")[0].strip()
