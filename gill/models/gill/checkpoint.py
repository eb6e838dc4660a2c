"""Save and load what trains: safetensors and JSON, nothing that could run code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gill.config import from_dict, override, to_dict
from gill.errors import CheckpointError, MissingCheckpointError
from gill.models.gill.config import GillConfig
from gill.models.gill.encoding import GillTokenizer
from gill.models.gill.loading import load_model
from gill.models.gill.model import GillModel
from gill.models.gill.released import read_json, read_released, write_released
from gill.parameters import load_trainable_state, trainable_state

WEIGHTS_NAME, CONFIG_NAME = "weights.safetensors", "model.json"
_FAMILY = "gill"


def save_model(folder: Path, model: GillModel) -> None:
    """Write the weights that train and the settings to build the rest."""
    save_state(folder, model.config, trainable_state(model), model.vocabulary.num_words)


def save_state(folder: Path, config: GillConfig, state: Mapping[str, Tensor], num_words: int) -> None:
    """Write weights that need no model around them.

    Args:
        state: what trains, by our names.
        num_words: of the language model's vocabulary in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), folder / WEIGHTS_NAME)
    card = {"family": _FAMILY, "num_words": num_words, "config": to_dict(config)}
    (folder / CONFIG_NAME).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_saved(
    folder: Path, device: torch.device | str = "cpu", changes: Mapping[str, Any] | None = None
) -> tuple[GillModel, GillTokenizer]:
    """Build a saved model around its backbones.

    Args:
        changes: settings to replace, such as where the backbones lie or their dtype.

    Raises:
        MissingCheckpointError: a file is not there; CheckpointError: it does not fit.
    """
    card = read_card(folder)
    model, tokenizer = load_model(override(from_dict(GillConfig, card["config"]), changes or {}), device)
    if tokenizer.num_words != card["num_words"]:
        raise CheckpointError(
            f"{folder} was trained with a vocabulary of {card['num_words']} words, {model.config.language} has "
            f"{tokenizer.num_words}; use the language model it was trained with"
        )
    load_weights(folder, model)
    return model, tokenizer


def load_weights(folder: Path, model: GillModel) -> None:
    """Copy saved weights into a model that is already built.

    Raises:
        MissingCheckpointError, CheckpointError: as `load_saved`.
    """
    path, state = folder / WEIGHTS_NAME, read_weights(folder)
    rows = state.get("img_tokens.input_rows")
    if rows is not None and len(rows) != model.config.num_img_tokens:
        raise CheckpointError(
            f"{path} has {len(rows)} [IMG] rows, the model has {model.config.num_img_tokens}; "
            f"set num_img_tokens={len(rows)} or retrain"
        )
    load_trainable_state(model, state, str(path))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """What trains, by our names, of a saved model.

    Raises:
        MissingCheckpointError: not there; CheckpointError: damaged.
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise MissingCheckpointError(f"{path} is missing; {folder} is not a saved model")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}; copy it again") from error


def load_released_model(
    folder: Path, device: torch.device | str = "cpu", changes: Mapping[str, Any] | None = None
) -> tuple[GillModel, GillTokenizer]:
    """Build the model of a released `pretrained_ckpt.pth.tar` and `model_args.json`; arguments as `load_saved`.

    Raises:
        MissingCheckpointError, CheckpointError: as `load_saved`.
    """
    config, state = read_released(folder)
    model, tokenizer = load_model(override(config, changes or {}), device)
    load_trainable_state(model, state, str(folder))
    return model, tokenizer


def export_released(folder: Path, model: GillModel) -> None:
    """Write a model as the originals' loaders read it."""
    config = model.config
    if model.conditioning is not None:
        shape = {"conditioning_length": model.conditioning.length, "conditioning_width": model.conditioning.width}
        config = dataclasses.replace(config, **shape)
    write_released(folder, config, trainable_state(model), model.vocabulary.num_words)


def read_card(folder: Path) -> dict[str, Any]:
    """The settings beside saved weights.

    Raises:
        MissingCheckpointError: not there; CheckpointError: of another family, or not JSON.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise MissingCheckpointError(f"{path} is missing; {folder} is not a saved model")
    card = read_json(path)
    if card.get("family") != _FAMILY or not {"config", "num_words"} <= card.keys():
        raise CheckpointError(f"{path} is not of the {_FAMILY} family, or lacks config and num_words")
    return card
