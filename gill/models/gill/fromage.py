"""The original FROMAGe's calls, with its arguments, defaults and return shapes, over `GillGenerator`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from gill.models.gill.compat import draw_seed, segments, with_markers
from gill.models.gill.pretrained import CHECKPOINTS, Pretrained
from gill.types import GenerationOptions, ImageOutput


class Fromage(Pretrained):
    """A FROMAGe with the original's methods; `generator` has the rest. Without an index it answers in text alone."""

    default_folder = CHECKPOINTS / "fromage_model"

    def generate_for_images_and_texts(
        self,
        prompts: Sequence[str | Image.Image],
        num_words: int = 0,
        ret_scale_factor: float = 1.0,
        top_p: float = 1.0,
        temperature: float = 0.0,
        max_num_rets: int = 1,
        max_img_per_ret: int = 1,
        generator: torch.Generator | None = None,
    ) -> list[str | list[Image.Image]]:
        """Answer texts and pictures.

        Args:
            num_words: tokens at most; 0 answers the [RET] tokens that the prompts themselves end in.
            ret_scale_factor: on the [RET] logit, as in the original: it makes a negative one less likely.
                `GenerationOptions.img_logit_bias` is the clean control.
            max_num_rets: [RET] tokens answered at most. max_img_per_ret: pictures for each.
            generator: source of this call's seed; None draws it from torch's global one.

        Returns:
            Texts and lists of pictures in reading order. The text before a list ends in " [RET]"; with num_words=0 it
            is the prompt's own.

        Raises:
            GenerationError: a prompt that is neither text nor picture, is too long, names no [RET] where num_words is
                0, or settings out of range.
        """
        options = GenerationOptions(
            num_words,
            temperature=temperature,
            top_p=top_p,
            img_logit_scale=ret_scale_factor,
            max_num_images=max_num_rets,
            num_retrieved=max_img_per_ret,
        )
        reply = self.generator.generate(segments(prompts), options, draw_seed(generator))
        marker = self.generator.model.config.img_token_name
        if not num_words:
            asked = "".join(prompt for prompt in prompts if isinstance(prompt, str)).split(marker)
            reply = [part for text, output in zip(asked, reply, strict=False) for part in (text.rstrip(), output)]
        return [
            _pictures(part) if isinstance(part, ImageOutput) else part for part in with_markers(reply, f" {marker}")
        ]

    def get_log_lik_scores(self, prompts: Sequence[str | Image.Image]) -> float:
        """Mean log-likelihood, in nats, of the text tokens of a prompt."""
        return float(self.generator.log_likelihoods([segments(prompts)])[0].mean())


def _pictures(output: ImageOutput) -> list[Image.Image]:
    return [picture.image for picture in output.retrieved]


load_fromage = Fromage.from_pretrained  # by the original's name
