"""What trains of a model, apart from any backbone: found in a run, a saved model or a file of the originals.

No language model is loaded, so the checkpoint of a 6.7 B model is pruned in the memory of its few trained tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gill.config import from_dict, override, require_known
from gill.errors import CheckpointError, MissingCheckpointError
from gill.models.gill.checkpoint import CONFIG_NAME, copy_weights, read_card, read_weights, save_state
from gill.models.gill.config import GillConfig
from gill.models.gill.encoding import GillTokenizer, is_tiny, load_tokenizer
from gill.models.gill.loading import build_model, load_backbones
from gill.models.gill.model import GillModel
from gill.models.gill.released import (
    ARGS_NAME,
    WEIGHTS_NAME,
    fit_mapper,
    read_num_words,
    read_released,
    write_released,
)

CHOICES = ("best", "last")
FROZEN_PARTS = ("language", "vision", "diffusion", "whitening")  # settings that name files
# Where a run keeps each: ours, then the originals'. Their released folders hold one file, which is both.
_PLACES = {
    "best": ("best", "ckpt_best.pth.tar", WEIGHTS_NAME),
    "last": ("model", "checkpoints/step-*", "ckpt.pth.tar", WEIGHTS_NAME),
}


@dataclass(frozen=True)
class Trained:
    """The trained part of a model.

    Attributes:
        config: with the sizes of the mapper in `state`.
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

    def halved(self) -> Trained:
        """The same with matrices in float16, for files of half the size; vectors and the temperature stay as they are.

        Raises:
            CheckpointError: a number that float16 cannot hold.
        """
        state = {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in self.state.items()}
        too_large = [name for name, tensor in state.items() if not tensor.isfinite().all()]
        if too_large:
            raise CheckpointError(f"{self.source}: float16 cannot hold {', '.join(too_large)}; keep float32")
        return replace(self, state=state)


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
    return Trained(fit_mapper(from_dict(GillConfig, card["config"]), state), state, card["num_words"], source)


def load_trained(
    place: Path,
    device: torch.device | str = "cpu",
    changes: Mapping[str, Any] | None = None,
    quantization: str = "",
    has_targets: bool = True,
) -> tuple[GillModel, GillTokenizer]:
    """Build a trained model around its frozen parts.

    Args:
        place: as `read_trained`.
        changes: settings to replace, such as where the frozen parts lie or their dtype.
        quantization, has_targets: as `load_backbones`.

    Raises:
        MissingCheckpointError: a file is not there; CheckpointError: it does not fit.
        ConfigError: frozen parts that cannot be loaded.
    """
    trained = read_trained(place)
    config = located(override(trained.config, changes or {}), trained.source)
    backbones = load_backbones(config, device, quantization, has_targets)
    tokenizer = load_tokenizer(config, len(backbones.language.table))
    if tokenizer.num_words != trained.num_words:
        raise CheckpointError(
            f"{trained.source} was trained with a vocabulary of {trained.num_words} words, {config.language} has "
            f"{tokenizer.num_words}; use the language model it was trained with"
        )
    model = build_model(config, backbones, tokenizer, device)
    copy_weights(model, trained.state, str(trained.source))
    return model, tokenizer


def located(config: GillConfig, source: Path) -> GillConfig:
    """Settings whose frozen parts are found from any working directory.

    A name is looked up in the model's own folder, then in the working directory, then in the folders above the model's;
    what is nowhere stays as it is, a name on the hub.

    Args:
        source: file or folder of the model.
    """
    own, *above = [source.resolve(), *source.resolve().parents]
    found: dict[str, Any] = {}
    for part in FROZEN_PARTS:
        name = getattr(config, part)
        if name and not is_tiny(name):
            places = (own / name, Path(name), *(folder / name for folder in above))
            found[part] = str(next((place for place in places if place.exists()), name))
    return replace(config, **found)


def write_trained(folder: Path, trained: Trained) -> None:
    """Write a model that `load_trained` and `load_gill` open."""
    save_state(folder, trained.config, trained.state, trained.num_words)


def write_trained_as_released(folder: Path, trained: Trained) -> None:
    """Write `pretrained_ckpt.pth.tar` and `model_args.json`, bfloat16, as the originals' loaders read them.

    Raises:
        CheckpointError: the originals have no name for a part of this model.
    """
    write_released(folder, trained.config, trained.state, trained.num_words)


def _find(place: Path, choice: str) -> Path:
    found = next(_existing(place, choice), None)
    if found is None and not place.exists():
        raise MissingCheckpointError(f"there is no {place}; give the folder of a run, or of a released model")
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
