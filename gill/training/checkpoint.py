"""Checkpoints of a run: safetensors and JSON, written whole or not at all, never overwritten while in use.

`RUN/checkpoints/step-00000100/` holds what the family saves of its model, `optimizer.safetensors` and `state.json`. A
folder appears by renaming, so a run killed while saving still has the one before.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from gill.errors import CheckpointError, MissingCheckpointError

STATE_NAME, OPTIMIZER_NAME = "state.json", "optimizer.safetensors"
_NUM_KEPT = 2
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class ModelFiles:
    """How a family keeps its model: `save(folder)` writes what trains, `load(folder)` reads it back into the model."""

    save: Callable[[Path], None]
    load: Callable[[Path], None]


@dataclass(frozen=True)
class Progress:
    """Where a run is: optimiser steps done, and the best validation score so far with its step (-1 = none yet)."""

    step: int = 0
    best_score: float = -1.0
    best_step: int = -1


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, run: Path, files: ModelFiles) -> None:
        self.run, self.folder, self.files = run, run / "checkpoints", files

    def newest(self) -> Path | None:
        """The newest whole checkpoint, None before the first."""
        return max(self.folder.glob("step-*"), default=None)

    def save(self, progress: Progress, names: list[str], optimizer: torch.optim.Optimizer) -> Path:
        """Write a checkpoint and remove older ones; the best one is kept.

        Args:
            names: of the optimiser's parameters, in its order.
        """
        target = self.folder / _step_name(progress.step)
        if not target.exists():
            unfinished = self._fresh(f".unfinished-{os.getpid()}")
            self.files.save(unfinished)
            save_file(_moments(names, optimizer), unfinished / OPTIMIZER_NAME)
            (unfinished / STATE_NAME).write_text(json.dumps(asdict(progress)) + "\n", encoding="utf-8")
            unfinished.rename(target)
        self._remove_old(keep=_step_name(progress.best_step))
        return target

    def load(self, folder: Path, names: list[str], optimizer: torch.optim.Optimizer) -> Progress:
        """Read a checkpoint into model and optimiser.

        Raises:
            MissingCheckpointError: a file is not there; CheckpointError: it does not fit.
        """
        state, moments = folder / STATE_NAME, folder / OPTIMIZER_NAME
        for path in (state, moments):
            if not path.is_file():
                raise MissingCheckpointError(f"{path} is missing; {folder} is not a checkpoint of a training run")
        self.files.load(folder)
        try:
            _load_moments(moments, names, optimizer)
            return Progress(**json.loads(state.read_text(encoding="utf-8")))
        except (SafetensorError, json.JSONDecodeError, TypeError) as error:
            raise CheckpointError(f"{folder} is damaged: {error}; remove it, the one before it is used then") from error

    def export(self, name: str) -> None:
        """Write the model alone to `RUN/name`, replacing what is there."""
        unfinished, target, old = self._fresh(f".{name}-{os.getpid()}"), self.run / name, self._fresh(f".old-{name}")
        self.files.save(unfinished)
        if target.exists():
            target.rename(old)
        unfinished.rename(target)
        shutil.rmtree(old, ignore_errors=True)

    def _fresh(self, name: str) -> Path:
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not name.startswith(".old"):
            path.mkdir()
        return path

    def _remove_old(self, keep: str) -> None:
        for path in sorted(self.folder.glob("step-*"))[:-_NUM_KEPT]:
            if path.name != keep:
                shutil.rmtree(path)
        for path in self.folder.glob(".unfinished-*"):
            shutil.rmtree(path, ignore_errors=True)


def _step_name(step: int) -> str:
    return f"step-{step:08d}"


def _moments(names: list[str], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment].detach().cpu().contiguous()
        for name, parameter in zip(names, _parameters(optimizer), strict=True)
        for moment in _MOMENTS
        if parameter in optimizer.state
    }


def _load_moments(path: Path, names: list[str], optimizer: torch.optim.Optimizer) -> None:
    saved = load_file(path)
    unknown = saved.keys() - {f"{moment}/{name}" for moment in _MOMENTS for name in names}
    if unknown:
        raise CheckpointError(f"{path} is of another model: it has {sorted(unknown)[0]}")
    for name, parameter in zip(names, _parameters(optimizer), strict=True):
        own = {moment: saved[f"{moment}/{name}"] for moment in _MOMENTS if f"{moment}/{name}" in saved}
        if own:
            # The step counter stays on the host, as AdamW keeps it.
            optimizer.state[parameter] = {m: t if m == "step" else t.to(parameter.device) for m, t in own.items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
