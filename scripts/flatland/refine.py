"""Stage `refine`: the UNet of stage `diffusion` trained on, on new pictures at a lower rate.

The first stage places and colours everything; what it leaves are smudges and things drawn twice at two offsets, which
only more pictures cure.
"""

from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel

from scripts.flatland import diffusion
from scripts.flatland.common import BuildContext

STEPS, LEARNING_RATE, NUM_CHUNKS = 3000, 8e-4, 16


def build(context: BuildContext) -> dict[str, float]:
    """Train on from the written UNet, whose weights are float16, and write `diffusion` again."""
    unet = UNet2DConditionModel.from_pretrained(context.out / "diffusion" / "unet", dtype=torch.float32)
    new_pictures = replace(context, seed=context.seed + 1)
    return diffusion.train("refine", unet, STEPS, LEARNING_RATE, NUM_CHUNKS, new_pictures)
