"""The decision head beside a saved model: `decision.safetensors` and `decision.json`.

A head reads the hidden state of [IMG0], which depends on the trained [IMG] rows; the card therefore names the rows it
was trained with, and a head of another training is refused instead of answering at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gill.errors import CheckpointError, MissingCheckpointError
from gill.files import write_json
from gill.mappers import DecisionHead
from gill.models.gill.released import read_json
from gill.parameters import tensor_hash

DECISION_WEIGHTS, DECISION_CARD = "decision.safetensors", "decision.json"
DECISION_CLASSES = ("generate", "retrieve")
_KIND = "gill decision head"


def save_decision(folder: Path, head: DecisionHead, img_rows_RD: Tensor, report: Mapping[str, Any]) -> None:
    """Write a decision head into the folder of its model.

    Args:
        img_rows_RD: the model's `img_tokens.input_rows`.
        report: how it was trained and what it scores; plain values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in head.linear.state_dict().items()}
    save_file(state, folder / DECISION_WEIGHTS)
    card = {"kind": _KIND, "classes": DECISION_CLASSES, "hidden_width": head.linear.in_features}
    card = {**card, "img_rows_sha256": _rows_hash(img_rows_RD), "report": dict(report)}
    write_json(folder / DECISION_CARD, card)


def load_decision(folder: Path, img_rows_RD: Tensor) -> DecisionHead:
    """The decision head of a model folder, float32, on the CPU, in eval mode.

    Args:
        img_rows_RD: the loaded model's `img_tokens.input_rows`.

    Raises:
        MissingCheckpointError: there is none; CheckpointError: it is damaged, or belongs to another training.
    """
    card_path, path = folder / DECISION_CARD, folder / DECISION_WEIGHTS
    for wanted in (card_path, path):
        if not wanted.is_file():
            raise MissingCheckpointError(f"{wanted} is missing; write it with scripts/train_decision_model.py")
    try:
        card, state = read_json(card_path), load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"the decision head in {folder} is damaged: {error}; copy it again") from error
    if card.get("kind") != _KIND or card.get("classes") != list(DECISION_CLASSES):
        raise CheckpointError(f"{card_path} is not the card of a {_KIND} with classes {', '.join(DECISION_CLASSES)}")
    if card.get("img_rows_sha256") != _rows_hash(img_rows_RD):
        raise CheckpointError(
            f"{path} was trained with other [IMG] rows than the model has; run scripts/train_decision_model.py again"
        )
    return _head(path, state, card.get("report") or {})


def _head(path: Path, state: Mapping[str, Tensor], report: Mapping[str, Any]) -> DecisionHead:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    width = (shapes.get("weight") or (0,))[-1]
    if shapes != {"weight": (2, width), "bias": (2,)}:
        raise CheckpointError(f"{path} holds {shapes}, wanted weight (2, D) and bias (2,); it is no decision head")
    head = DecisionHead(width, report)
    head.linear.load_state_dict(dict(state))
    return head.eval()


def _rows_hash(img_rows_RD: Tensor) -> str:
    return tensor_hash(img_rows_RD.detach().float())
