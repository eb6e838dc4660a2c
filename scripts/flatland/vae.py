"""Stage `vae`: an AutoencoderKL that shrinks 64x64 pictures to 16x16x4 latents.

Trained on dense pictures (up to four things), which show more outlines for the same work. After training its latent
channels are standardised: the shift and scale are folded into the 1x1 convolutions around the latent, so that
`scaling_factor` is 1 and the diffusion model meets zero mean and unit variance.
"""

from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from gill.flatland.pictures import contact_sheet, draw_batch
from gill.flatland.world import (
    CELLS,
    PLACES,
    Scene,
    Thing,
    item_rng,
    make_scene,
    random_look,
    random_offset,
    scenes,
)
from scripts.flatland.common import (
    BuildContext,
    Training,
    half_on_cpu,
    mean_marks,
    to_pictures,
    to_pixels,
)

STEPS, BATCH, LEARNING_RATE = 4500, 16, 2.5e-3
KL_WEIGHT = 2e-4
CELL_SHARE = 0.75


def new_vae() -> AutoencoderKL:
    """An untrained autoencoder: 3 levels of 32 channels, no attention, 0.17 M parameters."""
    return AutoencoderKL(
        block_out_channels=(32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=0,
        mid_block_add_attention=False,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=64,
        scaling_factor=1.0,
    )


def dense_scene(rng: Random) -> Scene:
    """A place with things in most cells; `novel` pairs are left out here too."""
    things = []
    for cell in CELLS:
        if rng.random() < CELL_SHARE:
            while (thing := Thing(*random_look(rng), cell, random_offset(rng))).is_novel:
                pass
            things.append(thing)
    return make_scene(rng.choice(PLACES), things)


def dense_scenes(seed: int, step: int, count: int) -> list[Scene]:
    """The scenes of one step."""
    rng = item_rng(seed, "train", "dense", step)
    return [dense_scene(rng) for _ in range(count)]


def build(context: BuildContext) -> dict[str, float]:
    """Train, standardise and write `diffusion/vae`."""
    torch.manual_seed(context.seed)
    vae = new_vae().to(context.device)

    def loss(step: int) -> dict[str, Tensor]:
        pixels = _pixels(context, step, BATCH)
        torch.manual_seed(context.seed * 1_000_003 + step)
        return vae_loss(vae, pixels)

    shown = list(scenes("val", 64, context.seed))
    training = Training(
        "vae",
        vae,
        loss,
        context.steps(STEPS),
        LEARNING_RATE,
        weight_decay=0.0,
        ema_decay=0.998,
        panel=lambda module: _panel(module, shown),
    )
    trained = training.run(context)
    standardise_latents(trained, _pixels(context, -1, 512))
    half_on_cpu(trained).save_pretrained(context.out / "diffusion" / "vae")
    return {"steps": training.steps, "batch": BATCH, "seconds": training.seconds}


def _pixels(context: BuildContext, step: int, count: int) -> Tensor:
    return to_pixels(draw_batch(dense_scenes(context.seed, step, count)), context.device)


def vae_loss(vae: AutoencoderKL, pixels: Tensor) -> dict[str, Tensor]:
    """L1 + 2 MSE of the reconstruction, and the KL divergence to a unit Gaussian, each a mean per number."""
    posterior = vae.encode(pixels).latent_dist
    restored = vae.decode(posterior.sample()).sample
    l1, mse = F.l1_loss(restored, pixels), F.mse_loss(restored, pixels)
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return {"loss": l1 + 2 * mse + KL_WEIGHT * kl, "l1": l1, "mse": mse, "kl": kl}


@torch.no_grad()
def standardise_latents(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Fold (z - mean) / std into `quant_conv`, and its inverse into `post_quant_conv`."""
    latents = vae.encode(pixels).latent_dist.sample()
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    channels = len(mean)
    vae.quant_conv.weight[:channels] /= std[:, None, None, None]
    vae.quant_conv.bias[:channels] = (vae.quant_conv.bias[:channels] - mean) / std
    vae.quant_conv.bias[channels:] -= 2 * std.log()
    after: nn.Conv2d = vae.post_quant_conv
    after.bias += (after.weight[:, :, 0, 0] @ mean[:, None])[:, 0]
    after.weight *= std[None, :, None, None]


def round_trip(vae: AutoencoderKL, pictures: np.ndarray) -> np.ndarray:
    """uint8[N, 64, 64, 3] -> the same through the latents' means."""
    pixels = to_pixels(pictures, vae.device).to(vae.dtype)
    return to_pictures(vae.decode(vae.encode(pixels).latent_dist.mean).sample)


def _panel(vae: AutoencoderKL, shown: list[Scene]) -> tuple[Image.Image, dict[str, float]]:
    """Rows of true pictures, each above its reconstruction; the judge's marks of the reconstructions."""
    true = draw_batch(shown)
    restored = round_trip(vae, true)
    rows = np.stack([true[:32].reshape(4, 8, 64, 64, 3), restored[:32].reshape(4, 8, 64, 64, 3)], axis=1)
    return contact_sheet(rows.reshape(64, 64, 64, 3)), mean_marks(restored, shown)
