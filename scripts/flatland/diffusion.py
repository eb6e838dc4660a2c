"""Stage `diffusion`: a StableDiffusionPipeline that draws the world from captions.

The UNet goes from 16x16 latents down to 4x4. There every position lies at the border, and the zeros around the picture
tell a convolution exactly which cell it looks at; the two-level UNet of the feasibility study could not tell left from
right for a long time. Latents and caption states are frozen, so they are computed once and kept on disk.
"""

from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from gill.backbones import Sampling, write_sampling
from gill.files import write_whole
from gill.flatland.captions import random_caption
from gill.flatland.pictures import contact_sheet, draw_batch
from gill.flatland.world import Scene, item_rng, sample_scene, scenes
from scripts.flatland.common import (
    BuildContext,
    Training,
    half_on_cpu,
    mean_marks,
    to_pixels,
    warmup_linear,
)

STEPS, BATCH, LEARNING_RATE = 4200, 48, 1.2e-3
WARMUP = 100
CHUNK, NUM_CHUNKS = 4096, 32
DROPPED_CAPTIONS = 0.1
SAMPLING_STEPS, GUIDANCE = 13, 2.0


def new_unet(text_width: int) -> UNet2DConditionModel:
    """An untrained UNet: 64, 96 and 160 channels at 16, 8 and 4; captions enter at 8 and at 4. 7.6 M parameters."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(64, 96, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def noising_scheduler() -> DDIMScheduler:
    """A cosine schedule with v-prediction: the signal is gone at the last step, where sampling starts."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def sampling_scheduler() -> DPMSolverMultistepScheduler:
    """SDE-DPM-Solver++(2M) on the same schedule: renewed noise washes out what was drawn twice (docs/LOG.md).

    It starts a little after the last step, where the picture is all noise, and spends the steps where outlines form.
    """
    return DPMSolverMultistepScheduler.from_config(
        noising_scheduler().config, algorithm_type="sde-dpmsolver++", timestep_spacing="leading"
    )


def load_pipeline(folder: Path, unet: UNet2DConditionModel, dtype: torch.dtype) -> StableDiffusionPipeline:
    """The pipeline around a UNet, its other parts read from `folder`."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae", dtype=dtype),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet,
        scheduler=sampling_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


class Cache:
    """Latents and caption states of training pictures, computed chunk by chunk when first asked for.

    Item `i` of chunk `c` is one random training scene with one random caption, drawn from (seed, c).
    """

    def __init__(self, folder: Path, pipeline: StableDiffusionPipeline, seed: int, device: torch.device) -> None:
        self.folder, self.pipeline, self.seed, self.device = folder, pipeline, seed, device
        self.chunks: dict[int, tuple[Tensor, Tensor]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.empty = encode_captions(pipeline, [""])[0]

    def batch(self, step: int, size: int, num_chunks: int) -> tuple[Tensor, Tensor]:
        """(float32[size, 4, 16, 16] latents, float32[size, L, C] states) of a training step, captions dropped.

        Steps walk through the chunks in turn; within a pass each item comes once, in an order that depends on the pass.
        """
        per_chunk = CHUNK // size
        turn, within = divmod(step, per_chunk)
        latents, states = self._chunk(turn % num_chunks)
        order = torch.randperm(CHUNK, generator=torch.Generator().manual_seed(self.seed * 7919 + turn))
        chosen = order[within * size : (within + 1) * size]
        rng = item_rng(self.seed, "train", "dropped-caption", step)
        dropped = torch.tensor([rng.random() < DROPPED_CAPTIONS for _ in range(size)])[:, None, None]
        picked = torch.where(dropped, self.empty.cpu().float(), states[chosen].float())
        return latents[chosen].float().to(self.device), picked.to(self.device)

    def _chunk(self, index: int) -> tuple[Tensor, Tensor]:
        if index not in self.chunks:
            path = self.folder / f"chunk_{index:03d}.pt"
            if not path.exists():
                pair = self._compute(index)
                write_whole(path, lambda unfinished: torch.save(pair, unfinished))
            self.chunks[index] = tuple(torch.load(path, weights_only=True))
        return self.chunks[index]

    @torch.no_grad()
    def _compute(self, index: int) -> list[Tensor]:
        rng = item_rng(self.seed, "train", "diffusion", index)
        found = [sample_scene(rng, "train") for _ in range(CHUNK)]
        parts = [self._encode(rng, found[at : at + 128]) for at in range(0, CHUNK, 128)]
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    def _encode(self, rng: Random, found: list[Scene]) -> tuple[Tensor, Tensor]:
        pixels = to_pixels(draw_batch(found), self.device)
        latents = self.pipeline.vae.encode(pixels).latent_dist.mean * self.pipeline.vae.config.scaling_factor
        states = encode_captions(self.pipeline, [random_caption(rng, scene) for scene in found])
        return latents.half().cpu(), states.half().cpu()


@torch.no_grad()
def encode_captions(pipeline: StableDiffusionPipeline, captions: list[str]) -> Tensor:
    """float[B, L, C]: the text encoder's states, padded as the pipeline itself does it."""
    tokens = pipeline.tokenizer(
        captions, padding="max_length", max_length=pipeline.tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    return pipeline.text_encoder(input_ids=tokens.to(pipeline.text_encoder.device)).last_hidden_state


def diffusion_loss(
    unet: UNet2DConditionModel, scheduler: DDIMScheduler, latents: Tensor, states: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Mean squared error of the predicted velocity at random times; each part of the batch in its own slice of time."""
    size, times = len(latents), scheduler.config.num_train_timesteps
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    slices = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
    at = (slices * times).long().to(latents.device)
    noisy = scheduler.add_noise(latents, noise, at)
    velocity = scheduler.get_velocity(latents, noise, at)
    return {"loss": F.mse_loss(unet(noisy, at, encoder_hidden_states=states).sample, velocity)}


def build(context: BuildContext) -> dict[str, float]:
    """Train the UNet from nothing and write `diffusion`, a whole StableDiffusionPipeline."""
    torch.manual_seed(context.seed)
    folder = context.out / "diffusion"
    unet = new_unet(CLIPTextModel.from_pretrained(folder / "text_encoder").config.hidden_size)
    return train("diffusion", unet, STEPS, LEARNING_RATE, NUM_CHUNKS, context)


def train(
    name: str, unet: UNet2DConditionModel, steps: int, learning_rate: float, num_chunks: int, context: BuildContext
) -> dict[str, float]:
    """Train a UNet on captioned pictures and write the pipeline around its averaged weights.

    Args:
        name: of the stage.
        unet: where training starts.
        steps, num_chunks: at full scale; a chunk is `CHUNK` pictures, drawn from the context's seed.
    """
    pipeline = load_pipeline(context.out / "diffusion", unet, torch.float32).to(context.device)
    pipeline.set_progress_bar_config(disable=True)
    cache = Cache(context.work / name / "cache", pipeline, context.seed, context.device)
    num_chunks = max(1, round(num_chunks * min(1.0, context.scale)))
    noising = noising_scheduler()

    def loss(step: int) -> dict[str, Tensor]:
        latents, states = cache.batch(step, BATCH, num_chunks)
        generator = torch.Generator().manual_seed(context.seed * 1_000_003 + step)
        return diffusion_loss(unet, noising, latents, states, generator)

    shown = list(scenes("val", 64, context.seed))
    training = Training(
        name,
        unet,
        loss,
        context.steps(steps),
        learning_rate,
        warmup=WARMUP,
        schedule=warmup_linear,
        ema_decay=0.998,
        panel=lambda module: _panel(pipeline, module, shown),
    )
    pipeline.unet = training.run(context)
    _write(pipeline, context.out / "diffusion")
    return {"steps": training.steps, "batch": BATCH, "seconds": training.seconds, "pictures": CHUNK * num_chunks}


def _write(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    pipeline.vae.register_to_config(_name_or_path="vae")  # not the folder of this machine
    pipeline.unet.register_to_config(_name_or_path="unet")
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        half_on_cpu(part)
    pipeline.save_pretrained(folder)
    write_sampling(folder, Sampling(SAMPLING_STEPS, GUIDANCE))


def _panel(
    pipeline: StableDiffusionPipeline, unet: UNet2DConditionModel, shown: list[Scene]
) -> tuple[Image.Image, dict[str, float]]:
    """Rows of true pictures, each above what is drawn from its caption."""
    pipeline.unet = unet
    rng = item_rng(0, "val", "panel", 0)
    drawn = draw_from_captions(pipeline, [random_caption(rng, scene) for scene in shown], range(len(shown)))
    true = draw_batch(shown[:32]).reshape(4, 8, 64, 64, 3)
    rows = np.stack([true, drawn[:32].reshape(4, 8, 64, 64, 3)], axis=1)
    return contact_sheet(rows.reshape(64, 64, 64, 3)), mean_marks(drawn, shown)


def draw_from_captions(
    pipeline: StableDiffusionPipeline,
    captions: list[str],
    seeds: range | list[int],
    steps: int = SAMPLING_STEPS,
    guidance: float = GUIDANCE,
) -> np.ndarray:
    """uint8[N, 64, 64, 3]: one picture for each caption, each from its own seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawn = pipeline(
        captions,
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=64,
        width=64,
        generator=generators,
        output_type="np",
    ).images
    return np.rint(drawn * 255).astype(np.uint8)
