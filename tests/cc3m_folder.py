"""A data set laid out as the originals' README says, of pictures as cameras and editors save them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gill.data import target_path
from gill.files import write_array

NUM_TRAIN, NUM_VAL = 12, 5
MODES = ("RGB", "L", "CMYK", "RGBA", "P")  # JPEG: the first three, PNG: the others
SIZES = ((64, 48), (48, 64), (33, 50))
TARGET_SHAPE = (12, 16)
# Train on it for four steps, with a checkpoint after each, on random tiny parts.
COMMAND = [
    *("--dataset=cc3m", "--val-dataset=cc3m", "--image-dir=data/", "--log-base-dir=runs/", "--print-freq=1"),
    *("--epochs=1", "--steps_per_epoch=4", "--batch-size=4", "--val_steps_per_epoch=1", "--save-freq=1"),
    *(f"--num-clip-tokens={TARGET_SHAPE[0]}", f"--gen-emb-dim={TARGET_SHAPE[1]}"),
    *("--opt-version=tiny", "--visual-model=tiny", "--precision=fp32"),
    *("--set", "mapper_width=32", "mapper_layers=1", "num_panels=0", "num_captions=0"),
]


def write_cc3m(folder: Path, target_shape: tuple[int, int]) -> Path:
    """`dataset/cc3m_*.tsv`, `data/cc3m/{training,validation}/` and their `clip_embs/`; returns the folder.

    Args:
        target_shape: (L, C) of the stored conditioning targets.
    """
    rng = np.random.default_rng(0)
    (folder / "dataset").mkdir()
    for split, name, count in (("train", "training", NUM_TRAIN), ("val", "validation", NUM_VAL)):
        pictures = folder / "data" / "cc3m" / name
        pictures.mkdir(parents=True)
        for index in range(count):
            _photograph(rng, index).save(pictures / f"{split}{index}{_extension(index)}")
            target = rng.standard_normal(target_shape).astype(np.float16)
            write_array(target_path(pictures / "clip_embs", f"{split}{index}"), target)
        lines = [f"a picture of number {index}\t{split}{index}" for index in range(count)]
        (folder / "dataset" / f"cc3m_{split}.tsv").write_text("\n".join(["caption\timage", *lines]) + "\n")
    return folder


def _extension(index: int) -> str:
    return ".jpg" if index % len(MODES) < 3 else ".png"


def _photograph(rng: np.random.Generator, index: int) -> Image.Image:
    """Smooth light with grain; every mode and orientation occurs."""
    width, height = SIZES[index % len(SIZES)]
    light = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 100, width))[..., None] * rng.uniform(0.4, 1, 3)
    pixels = (light + rng.normal(0, 8, light.shape)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(MODES[index % len(MODES)])
