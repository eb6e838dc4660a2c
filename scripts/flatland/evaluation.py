"""Measures of Flatland's judge and frozen parts on held-out scenes; one function a part.

Every measure is a list of numbers, one an item, so that its mean comes with a 95 % interval over items.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPModel, CLIPTokenizer, OPTForCausalLM

from gill.flatland.captions import caption, random_caption
from gill.flatland.judge import read_picture
from gill.flatland.pictures import contact_sheet, draw_array, draw_batch
from gill.flatland.world import OFFSETS, Scene, distinct_scenes, item_rng, make_scene, scenes
from scripts.flatland.common import marks_of, to_pixels
from scripts.flatland.diffusion import draw_from_captions
from scripts.flatland.vae import round_trip

Measures = dict[str, list[float]]
NOISE_SIGMA = 8.0
# A picture is clean when no patch of so many pixels each way differs from the clean drawing by so many of 255 levels.
PATCH, CLEAN_LEVELS = 5, 50.0


def merge(parts: Iterable[Measures]) -> Measures:
    """The items of several seeds together."""
    merged: Measures = {}
    for part in parts:
        for name, values in part.items():
            merged.setdefault(name, []).extend(values)
    return merged


def prefixed(prefix: str, measures: Measures) -> Measures:
    """The same measures under longer names."""
    return {prefix + name: values for name, values in measures.items()}


def judge_measures(count: int, seed: int) -> Measures:
    """The judge on true pictures, on noisy ones, and on pictures of other scenes (its chance level)."""
    true = list(scenes("test", count, seed))
    pictures = draw_batch(true)
    noise = np.random.default_rng(seed).normal(0, NOISE_SIGMA, pictures.shape)
    noisy = np.clip(np.rint(pictures + noise), 0, 255).astype(np.uint8)
    chance = prefixed("judge_chance_", marks_of(np.roll(pictures, 1, axis=0), true))
    return {
        "judge_all": marks_of(pictures, true)["whole"],
        "judge_noisy": marks_of(noisy, true)["whole"],
    } | chance


def clip_measures(
    folder: Path, seed: int, device: torch.device, num_true: int = 1000, num_novel: int = 256
) -> Measures:
    """Caption-to-image R@1 among distinct held-out pairs, and among pairs with a `novel` thing."""
    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval().to(device)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "clip")
    galleries = {
        "clip_r1_1000": distinct_scenes("test", num_true, seed),
        "clip_novel_r1_256": distinct_scenes("novel", num_novel, seed),
    }
    return {name: _recall_at_1(clip, tokenizer, gallery, seed) for name, gallery in galleries.items()}


@torch.no_grad()
def _recall_at_1(clip: CLIPModel, tokenizer: CLIPTokenizer, gallery: list[Scene], seed: int) -> list[float]:
    rng = item_rng(seed, "test", "clip-caption", 0)
    tokens = tokenizer([random_caption(rng, scene) for scene in gallery], padding=True, return_tensors="pt")
    text = clip.get_text_features(input_ids=tokens.input_ids.to(clip.device)).pooler_output
    pixels = to_pixels(draw_batch(gallery), clip.device)
    images = torch.cat([clip.get_image_features(pixel_values=each).pooler_output for each in pixels.split(128)])
    best = (F.normalize(text, dim=-1) @ F.normalize(images, dim=-1).T).argmax(1).cpu()
    return (best == torch.arange(len(gallery))).double().tolist()


@torch.no_grad()
def vae_measures(pipeline: StableDiffusionPipeline, count: int, seed: int) -> Measures:
    """Round trips through the autoencoder, read by the judge."""
    true = list(scenes("test", count, seed))
    restored = [round_trip(pipeline.vae, draw_batch(true[at : at + 64])) for at in range(0, count, 64)]
    marks = marks_of(np.concatenate(restored), true)
    return {"vae_all": marks["whole"], "vae_shape_colour_cell": marks["shape_colour_cell"]}


def diffusion_measures(pipeline: StableDiffusionPipeline, split: str, count: int, seed: int) -> tuple[Measures, list]:
    """Pictures drawn from held-out captions, one seed a picture; returns the marks and the first 64 pairs."""
    true = list(scenes(split, count, seed))
    rng = item_rng(seed, split, "drawn-caption", 0)
    captions = [random_caption(rng, scene) for scene in true]
    first = seed * 1_000_000
    drawn = [
        draw_from_captions(pipeline, captions[at : at + 64], range(first + at, first + min(at + 64, count)))
        for at in tqdm(range(0, count, 64), desc=f"drawing ({split}, seed {seed})", unit="batch")
    ]
    pictures = np.concatenate(drawn)
    marks = marks_of(pictures, true) | {"clean": [float(smudge(picture) < CLEAN_LEVELS) for picture in pictures]}
    return prefixed("novel_" if split == "novel" else "", marks), [true[:64], pictures[:64]]


def smudge(picture: np.ndarray) -> float:
    """How far a picture's worst patch is from the world's own drawing of what the judge reads in it.

    Whether it is the right scene does not matter. An outline that is drawn twice or torn is a bad patch.

    Args:
        picture: uint8[64, 64, 3].

    Returns:
        0..255, the mean over the patch of the largest difference among a pixel's colours.
    """
    read = read_picture(picture)
    reach = max(OFFSETS)  # the judge looks a pixel further than the world goes
    things = [replace(each, offset=tuple(np.clip(each.offset, -reach, reach).tolist())) for each in read.things]
    drawing = draw_array(make_scene(read.place, things)).astype(np.float32)
    difference = np.abs(picture - drawing).max(axis=2)
    patches = np.lib.stride_tricks.sliding_window_view(difference, (PATCH, PATCH))
    return float(patches.mean(axis=(2, 3)).max())


def seconds_per_64(pipeline: StableDiffusionPipeline) -> float:
    """Seconds of a call that draws 64 pictures; the best of two."""
    captions = [caption(scene) for scene in scenes("test", 64)]
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        draw_from_captions(pipeline, captions, range(64))
        taken.append(time.perf_counter() - began)
    return min(taken)


def sample_grid(true: list[Scene], drawn: np.ndarray, columns: int = 8) -> Image.Image:
    """Each true picture with what was drawn from its caption at its right."""
    pairs = np.concatenate([draw_batch(true), drawn], axis=2)
    return contact_sheet(pairs, columns, zoom=1, gap=4)


def load_language(folder: Path, device: torch.device) -> tuple[OPTForCausalLM, AutoTokenizer]:
    """The language model in float32, and its tokenizer."""
    model = OPTForCausalLM.from_pretrained(folder / "language", dtype=torch.float32)
    return model.eval().to(device), AutoTokenizer.from_pretrained(folder / "language")
