"""What trains of a model, apart from any backbone: found in a run, a saved model or a file of the originals.

No language model is loaded, so the checkpoint of a 6.7 B model is pruned in the memory of its few trained tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gill.config import from_dict, require_known
from gill.errors import MissingCheckpointError
from gill.models.gill.checkpoint import CONFIG_NAME, read_card, read_weights, save_state
from gill.models.gill.config import GillConfig
from gill.models.gill.released import (
    ARGS_NAME,
    WEIGHTS_NAME,
    fit_mapper,
    read_num_words,
    read_released,
    write_released,
)

CHOICES = ("best", "last")
# Where a run keeps each: ours, then the originals'. Their released folders hold one file, which is both.
_PLACES = {
    "best": ("best", "ckpt_best.pth.tar", WEIGHTS_NAME),
    "last": ("model", "checkpoints/step-*", "ckpt.pth.tar", WEIGHTS_NAME),
}


@dataclass(frozen=True)
class Trained:
    """The trained part of a model.

    Attributes:
        state: by our names. num_words: K, so the id of the first [IMG] token.
        source: the folder or file it was read from.
    """

    config: GillConfig
    state: dict[str, Tensor]
    num_words: int
    source: Path

    @property
    def num_values(self) -> int:
        """Numbers that train."""
        return sum(tensor.numel() for tensor in self.state.values())


def read_trained(place: Path, choice: str = "best") -> Trained:
    """What trains of the model in `place`.

    Args:
        place: a run folder of ours or of the originals, a saved model, or a `.pth.tar` beside its `model_args.json`.
        choice: "best" by validation, or "last"; matters for run folders only.

    Raises:
        MissingCheckpointError: nothing of the kind is there; CheckpointError: it cannot be read safely.
    """
    require_known("choice", choice, CHOICES)
    source = place if place.is_file() or (place / CONFIG_NAME).is_file() else _find(place, choice)
    if source.is_file():
        config, state = read_released(source.parent, source.name)
        return Trained(config, state, read_num_words(source.parent), source)
    card, state = read_card(source), read_weights(source)
    return Trained(from_dict(GillConfig, card["config"]), state, card["num_words"], source)


def write_trained(folder: Path, trained: Trained) -> None:
    """Write a model that `load_saved` and `load_gill` open."""
    save_state(folder, trained.config, trained.state, trained.num_words)


def write_trained_as_released(folder: Path, trained: Trained) -> None:
    """Write `pretrained_ckpt.pth.tar` and `model_args.json`, bfloat16, as the originals' loaders read them.

    Raises:
        CheckpointError: the originals have no name for a part of this model.
    """
    write_released(folder, fit_mapper(trained.config, trained.state), trained.state, trained.num_words)


def _find(place: Path, choice: str) -> Path:
    found = next(_existing(place, choice), None)
    if found is None:
        names = ", ".join(_PLACES[choice])
        other = next(name for name in CHOICES if name != choice)
        hint = (
            f"it has a {other} one" if next(_existing(place, other), None) else f"give a run, or a {ARGS_NAME} folder"
        )
        raise MissingCheckpointError(f"{place} holds no {choice} checkpoint (looked for {names}); {hint}")
    return found


def _existing(place: Path, choice: str) -> Iterator[Path]:
    for name in _PLACES[choice]:
        yield from sorted(place.glob(name), reverse=True)  # the newest step first
