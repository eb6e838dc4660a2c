"""Save and load what trains: safetensors and JSON, nothing that could run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gill.config import to_dict
from gill.errors import CheckpointError, MissingCheckpointError
from gill.files import write_json
from gill.models.gill.config import GillConfig
from gill.models.gill.model import GillModel
from gill.models.gill.released import read_json, write_released
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
    write_json(folder / CONFIG_NAME, card)


def load_weights(folder: Path, model: GillModel) -> None:
    """Copy saved weights into a model that is already built.

    Raises:
        MissingCheckpointError: a file is not there; CheckpointError: it does not fit.
    """
    copy_weights(model, read_weights(folder), str(folder / WEIGHTS_NAME))


def copy_weights(model: GillModel, state: Mapping[str, Tensor], source: str) -> None:
    """Copy what trains into a model.

    Args:
        state: by our names. source: where it was read from, for messages.

    Raises:
        CheckpointError: it is of another model.
    """
    rows = state.get("img_tokens.input_rows")
    if rows is not None and len(rows) != model.config.num_img_tokens:
        raise CheckpointError(
            f"{source} has {len(rows)} [IMG] rows, the model has {model.config.num_img_tokens}; "
            f"set num_img_tokens={len(rows)} or retrain"
        )
    load_trainable_state(model, state, source)


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


def export_released(folder: Path, model: GillModel) -> None:
    """Write a model as the originals' loaders read it."""
    write_released(folder, model.config, trainable_state(model), model.vocabulary.num_words)


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
