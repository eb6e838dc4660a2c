"""The last pictures of Flatland's stories, batched, beside one request at a time as the original answers them.

Flatland's trained GILL reads five captions and four pictures of each story, an image is forced, and its diffusion
model draws it: same scheduler, steps, guidance and seeds on both sides.
    vist_language_ratio      contexts to conditioning: stories a second, ours / plain. The original encodes one picture
                             at a time and, to get the states of the [IMG] tokens, reads the whole context twice with
                             the logits of every position (github.com/kohjingyu/gill 4600b71,
                             evals/generate_vist_images.py: num_words=2)
    vist_language_cpu_ratio  the same in CPU seconds of one thread
    vist_pipeline_ratio      contexts to pictures: CPU seconds of one thread
Of both sides the shortest of alternating runs counts, since whatever else a machine does only makes them longer.
Conditioning and pictures must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gill.data import STORY_FORMS, story_context
from gill.flatland import story
from gill.models.gill import GillGenerator, load_gill
from gill.models.gill.prompts import PromptLayout
from gill.types import GenerationOptions, ImageOutput, Segment
from scripts.benchmarks.measure import (
    BenchmarkError,
    Sides,
    clock_seconds,
    cpu_seconds,
    print_bars,
    shortest,
    single_thread,
)

BARS = {"vist_language_ratio": 4.0, "vist_pipeline_ratio": 1.5}
_CONDITIONING_TOLERANCE = 1e-4  # of the largest number, float32
_PICTURE_TOLERANCE = 0.5  # mean difference of a pixel in 0..255

Context = Sequence[Segment]


@dataclass(frozen=True)
class Scale:
    """How many stories are read together; None takes Flatland's own number of steps."""

    num_stories: int
    num_steps: int | None
    num_language_rounds: int
    num_rounds: int


FULL_SCALE = Scale(32, None, 9, 3)
TINY_SCALE = Scale(2, 2, 1, 1)


def illustrating_bench(is_tiny: bool = False) -> dict[str, float]:
    """Both ratios and the seconds behind them; see the module.

    Args:
        is_tiny: few stories and steps; times mean nothing.

    Raises:
        BenchmarkError: the two sides make different things.
    """
    scale = TINY_SCALE if is_tiny else FULL_SCALE
    generator = load_gill(load_ret_embs=False, device="cpu").generator
    contexts = [story_context(story("test", number, 1), STORY_FORMS[-1]) for number in range(scale.num_stories)]
    language: Sides = (
        lambda: [plain_conditioning(generator, context) for context in contexts],
        lambda: conditioning_together(generator, contexts),
    )
    whole: Sides = (
        lambda: _plain_pictures(generator, contexts, scale),
        lambda: pictures_together(generator, contexts, scale),
    )
    _require_same(generator, contexts, scale)
    by_clock = shortest("illustrating, language by the clock", language, clock_seconds, scale.num_language_rounds)
    with single_thread():
        in_cpu = shortest("illustrating, language in CPU", language, cpu_seconds, scale.num_language_rounds)
        whole_cpu = shortest("illustrating, all in CPU", whole, cpu_seconds, scale.num_rounds)
    results = {
        "vist_language_ratio": by_clock[0] / by_clock[1],
        "vist_language_cpu_ratio": in_cpu[0] / in_cpu[1],
        "vist_pipeline_ratio": whole_cpu[0] / whole_cpu[1],
        "vist_language_seconds": by_clock[1],
        "vist_language_cpu_seconds": in_cpu[1],
        "vist_pipeline_cpu_seconds": whole_cpu[1],
    }
    print_bars(results, BARS)
    return results


def conditioning_together(generator: GillGenerator, contexts: Sequence[Context]) -> Tensor:
    """float[B, L, C] of all contexts in one call, no picture remembered."""
    _forget(generator)
    found = generator.conditioning_of(contexts).conditioning
    assert found is not None, "Flatland's model draws"
    return found


def pictures_together(generator: GillGenerator, contexts: Sequence[Context], scale: Scale) -> list[Image.Image]:
    """A picture a context, in one call; drawn pictures are scored too, which the plain side is spared."""
    _forget(generator)
    options = GenerationOptions(num_words=1, force_image=True, num_retrieved=0, num_inference_steps=scale.num_steps)
    replies = generator.generate_batch(contexts, options, range(len(contexts)))
    outputs = [part for reply in replies for part in reply if isinstance(part, ImageOutput)]
    return [output.generated[0].image for output in outputs]


@torch.no_grad()
def plain_conditioning(generator: GillGenerator, context: Context) -> Tensor:
    """float[1, L, C] of one context as the original gets it: picture by picture, and the whole text twice."""
    model, transform = generator.model, generator.layout.transform
    assert transform is not None and model.vision is not None
    tower = model.vision.tower
    features = [
        part.text if part.image is None else tower(transform(part.image)[None]).pooler_output[0] for part in context
    ]
    laid = PromptLayout(model, generator.tokenizer, None).lay_out([[piece for piece in features if piece is not None]])
    for ids in (laid, laid.ending_in(generator.img_ids)):
        embeddings_1SD = model.embed(torch.tensor(ids.ids), laid.visual)
        outputs = model.language.model(inputs_embeds=embeddings_1SD, use_cache=False, output_hidden_states=True)
    return model.map_conditioning(outputs.hidden_states[-1][:, -len(generator.img_ids) :])


def plain_picture(generator: GillGenerator, context: Context, seed: int, scale: Scale) -> Image.Image:
    """Of one context."""
    drawer = generator.images.drawer
    assert drawer is not None
    (picture,) = drawer.draw(plain_conditioning(generator, context), [seed], scale.num_steps)
    assert picture is not None, "Flatland has no safety checker"
    return picture


def _plain_pictures(generator: GillGenerator, contexts: Sequence[Context], scale: Scale) -> list[Image.Image]:
    return [plain_picture(generator, context, seed, scale) for seed, context in enumerate(contexts)]


def _forget(generator: GillGenerator) -> None:
    """Pictures of an earlier call are encoded again."""
    layout = PromptLayout(generator.model, generator.tokenizer, generator.layout.transform)
    generator.layout = generator.images.layout = layout


def _require_same(generator: GillGenerator, contexts: Sequence[Context], scale: Scale) -> None:
    wanted = torch.cat([plain_conditioning(generator, context) for context in contexts])
    difference = float((conditioning_together(generator, contexts) - wanted).abs().max() / wanted.abs().max())
    if difference > _CONDITIONING_TOLERANCE:
        raise BenchmarkError(f"conditioning differs by {difference:.1e}; this would compare different work")
    pairs = zip(_plain_pictures(generator, contexts, scale), pictures_together(generator, contexts, scale), strict=True)
    pixels = max(float(abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean()) for one, other in pairs)
    if pixels > _PICTURE_TOLERANCE:
        raise BenchmarkError(f"pictures differ by {pixels:.2f} of 255 a pixel; this would compare different work")
