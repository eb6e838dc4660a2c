"""A folder of recorded outputs, and our model rebuilt from what it says. Nothing in the folder is executed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gill.backbones import ImageTransform, load_image_transform
from gill.errors import DataError, MissingFileError
from gill.models.gill import GillModel, GillTask, GillTokenizer, load_model
from gill.models.gill.released import config_from_args, export_state, fit_mapper, import_state, is_fromage
from gill.parameters import load_trainable_state
from gill.types import Batch
from scripts.parity.recipe import make_state


@dataclass(frozen=True)
class ParityFolder:
    """What a folder holds, with our model.

    Attributes:
        golden: arrays by key. images: the recorded pictures.
        is_fromage: whose conventions the keys follow.
    """

    golden: Mapping[str, np.ndarray]
    model: GillModel
    tokenizer: GillTokenizer
    transform: ImageTransform
    images: list[Image.Image]
    is_fromage: bool

    def task(self, prefix: str = "") -> GillTask:
        """The training task, with words before every text."""
        words = tuple(self.tokenizer.words(prefix)) if prefix else ()
        self.model.vocabulary = dataclasses.replace(self.tokenizer.vocabulary, prefix=words)
        return GillTask(self.model)

    def pixel_values(self) -> Tensor:
        """float[B, 3, H, W] as our preprocessing makes them."""
        return self.transform.batch(self.images)

    def batch(self, is_paired: bool) -> Batch:
        """The recorded batch: captions without their trailing [IMG] tokens."""
        targets = self.golden.get("clip_emb")
        return Batch(
            text_ids=torch.from_numpy(self.golden["tokens"]).long(),
            text_lengths=torch.from_numpy(self.golden["caption_len"]).long() - self.model.config.num_img_tokens,
            images=self.pixel_values(),
            conditioning_target=None if targets is None else torch.from_numpy(targets).float(),
            is_paired=is_paired,
        )

    def released_gradients(self) -> dict[str, Tensor]:
        """Gradients by the released names."""
        own = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        return export_state(own, self.model.config)


def open_folder(folder: Path, seed: int) -> ParityFolder:
    """Read a folder and rebuild its model from `seed`.

    Raises:
        MissingFileError: it has no meta.json or golden.npz; DataError: they are not what they should be.
        GillError: its backbones cannot be loaded.
    """
    for name in ("meta.json", "golden.npz"):
        if not (folder / name).is_file():
            raise MissingFileError(
                f"{folder / name} is missing; give a folder with meta.json, golden.npz and both backbones"
            )
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    with np.load(folder / "golden.npz", allow_pickle=False) as arrays:
        golden = {key: arrays[key] for key in arrays.files}
    model, tokenizer = _rebuild(folder, meta, seed)
    if tokenizer.num_words + model.config.num_img_tokens != meta.get("len_tokenizer"):
        size = tokenizer.num_words + model.config.num_img_tokens
        raise DataError(f"{folder}: our tokenizer has {size} entries, the recorded one {meta.get('len_tokenizer')}")
    images = [Image.fromarray(pixels) for pixels in golden["images"]]
    transform = load_image_transform(model.config.vision)
    return ParityFolder(golden, model, tokenizer, transform, images, is_fromage(meta["model_args"]))


def _rebuild(folder: Path, meta: Mapping[str, dict], seed: int) -> tuple[GillModel, GillTokenizer]:
    config = config_from_args(meta["model_args"])
    state = import_state(make_state(seed, meta["state_shapes"]), config)
    config = dataclasses.replace(
        fit_mapper(config, state),
        language=str(folder / config.language),
        vision=str(folder / config.vision),
        diffusion="",
        frozen_dtype="float32",
    )
    model, tokenizer = load_model(config)
    load_trainable_state(model, state, str(folder))
    return model.eval(), tokenizer
