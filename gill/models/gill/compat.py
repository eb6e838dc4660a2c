"""The original GILL's calls, with its arguments, defaults and return shapes, over `GillGenerator`.

What differs from the original on purpose: text after the last image is kept, replies are not cut at their first
full stop, scores of drawn and fetched pictures are both cosines, and the choice between them is never out of range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from gill.errors import GenerationError
from gill.models.gill.generator import GillGenerator
from gill.models.gill.pretrained import CHECKPOINTS, Pretrained
from gill.types import GenerationOptions, ImageOutput, Segment

_MAX_SEED = 2**31


class Gill(Pretrained):
    """A GILL with the original's methods; `generator` has the rest.

    Args:
        num_gen_images: drawn per image. num_ret_images: fetched per image.
    """

    default_folder = CHECKPOINTS / "gill_flatland"

    def __init__(self, generator: GillGenerator, num_gen_images: int = 1, num_ret_images: int = 3) -> None:
        super().__init__(generator)
        self.num_gen_images, self.num_ret_images = num_gen_images, num_ret_images

    def generate_for_images_and_texts(
        self,
        prompts: Sequence[str | Image.Image],
        num_words: int = 0,
        min_word_tokens: int = 0,
        ret_scale_factor: float = 1.0,
        gen_scale_factor: float = 1.0,
        top_p: float = 1.0,
        temperature: float = 0.0,
        max_num_rets: int = 1,
        generator: torch.Generator | None = None,
        always_add_bos: bool = False,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
    ) -> list[str | dict[str, Any]]:
        """Answer texts and pictures.

        Args:
            num_words: tokens at most; 0 answers the [IMG] tokens that the prompts themselves name.
            ret_scale_factor, gen_scale_factor: as in the original: above 1 the [IMG0] logit becomes its absolute value
                times both; 1 and below change nothing. `GenerationOptions.img_logit_bias` is the clean control.
            max_num_rets: images at most.
            generator: source of this call's seed; None draws it from torch's global one.
            guidance_scale, num_inference_steps: None takes the diffusion model's own, which are 7.5 and 50 for Stable
                Diffusion 1.5.

        Returns:
            Texts and images in reading order. The text before an image ends in the image's token names. An image is
            {"gen": [(picture, score)], "ret": [(picture, "ret", score)], "decision": ["gen" or "ret", [p, p]]}, the
            probabilities those of drawing and of fetching; without a decision head both are 0.5.

        Raises:
            GenerationError: a prompt that is neither text nor picture, is too long, or settings out of range.
        """
        options = GenerationOptions(
            num_words,
            min_word_tokens,
            temperature,
            top_p,
            img_logit_scale=max(ret_scale_factor, 1.0) * max(gen_scale_factor, 1.0),
            max_num_images=max_num_rets,
            num_retrieved=self.num_ret_images,
            num_generated=self.num_gen_images,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            repeats_bos=always_add_bos,
        )
        reply = self.generator.generate(segments(prompts), options, draw_seed(generator))
        marker = " " + " ".join(self.generator.model.config.img_token_names)
        return [_as_dict(part) if isinstance(part, ImageOutput) else part for part in with_markers(reply, marker)]

    def get_log_likelihood_scores(self, prompts: Sequence[str | Image.Image]) -> float:
        """Mean log-likelihood, in nats, of the text tokens of a prompt."""
        return float(self.generator.log_likelihoods([segments(prompts)])[0].mean())


def segments(prompts: Sequence[str | Image.Image]) -> list[Segment]:
    """The original's prompts as ours; pictures of any class of Pillow's.

    Raises:
        GenerationError: something else.
    """
    found = []
    for prompt in prompts:
        if not isinstance(prompt, str | Image.Image):
            raise GenerationError(f"prompts are texts and PIL pictures, got {type(prompt).__name__}")
        found.append(Segment(text=prompt) if isinstance(prompt, str) else Segment(image=prompt))
    return found


def draw_seed(generator: torch.Generator | None) -> int:
    """A seed from a generator on any device, or from torch's global one; the next call gets another."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(_MAX_SEED, (), generator=generator, device=device))


def with_markers(reply: Sequence[str | ImageOutput], marker: str) -> list[str | ImageOutput]:
    """A reply in which each image follows a text that ends in `marker`; never empty."""
    found: list[str | ImageOutput] = []
    for part in reply:
        if isinstance(part, ImageOutput):
            said = found.pop() if found and isinstance(found[-1], str) else ""
            found += [f"{said}{marker}", part]
        else:
            found.append(part)
    return found or [""]


def _as_dict(output: ImageOutput) -> dict[str, Any]:
    drawn = 0.5 if output.probability_generated is None else output.probability_generated
    is_drawn = output.shown in output.generated if output.shown else output.prefers_generated is not False
    return {
        "gen": [(picture.image, picture.score or 0.0) for picture in output.generated],
        "ret": [(picture.image, "ret", picture.score) for picture in output.retrieved],
        "decision": ["gen" if is_drawn else "ret", [drawn, 1 - drawn]],
    }


load_gill = Gill.from_pretrained  # by the original's name, with its arguments
