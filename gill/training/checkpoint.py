"""Checkpoints of a run: safetensors and JSON, written whole or not at all, never overwritten while in use.

`RUN/checkpoints/step-00000100/` holds what the family saves of its model, `optimizer.safetensors`, `state.json` and
the SHA-256 of each of them in `checksums.json`. Everything is on the disk before the folder appears, by renaming: a run
killed while saving still has the one before, and a checkpoint that was damaged later is known and passed over.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from gill.errors import NOT_JSON, CheckpointError, MissingCheckpointError
from gill.files import digest_file

STATE_NAME, OPTIMIZER_NAME, CHECKSUMS_NAME = "state.json", "optimizer.safetensors", "checksums.json"
_log = logging.getLogger(__name__)
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
    """The checkpoints of one run folder.

    Args:
        num_kept: how many of the last ones are kept, beside the best.
    """

    def __init__(self, run: Path, files: ModelFiles, num_kept: int = 2) -> None:
        self.run, self.folder, self.files, self.num_kept = run, run / "checkpoints", files, num_kept

    def newest(self) -> Path | None:
        """The newest whole checkpoint, None before the first.

        Raises:
            CheckpointError: there are some, and all are damaged.
        """
        return newest_checkpoint(self.run)

    def save(self, progress: Progress, names: list[str], optimizer: torch.optim.Optimizer) -> Path:
        """Write a checkpoint and remove older ones; the best one is kept.

        Args:
            names: of the optimiser's parameters, in its order.

        Raises:
            CheckpointError: it cannot be written; those before it are untouched.
        """
        with self._replacing(self.folder / _step_name(progress.step)) as unfinished:
            self.files.save(unfinished)
            save_file(_moments(names, optimizer), unfinished / OPTIMIZER_NAME)
            (unfinished / STATE_NAME).write_text(json.dumps(asdict(progress)) + "\n", encoding="utf-8")
            sums = {path.name: digest_file(path) for path in sorted(unfinished.iterdir())}
            (unfinished / CHECKSUMS_NAME).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
        self._remove_old(keep=_step_name(progress.best_step))
        return self.folder / _step_name(progress.step)

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
            return _read_progress(state)
        except CheckpointError:
            raise
        except (SafetensorError, *NOT_JSON, TypeError, KeyError) as error:
            raise CheckpointError(f"{folder} is damaged: {error}; remove it, the one before it is used then") from error

    def export(self, name: str) -> None:
        """Write the model alone to `RUN/name`, replacing what is there.

        Raises:
            CheckpointError: it cannot be written; what was there before still is.
        """
        with self._replacing(self.run / name) as unfinished:
            self.files.save(unfinished)

    @contextmanager
    def _replacing(self, target: Path) -> Iterator[Path]:
        """A fresh folder to fill, which then takes the place of `target` whole or not at all.

        Raises:
            CheckpointError: the disk is full, or the folder may not be written.
        """
        unfinished, old = self.folder / f".unfinished-{target.name}", self.folder / f".old-{target.name}"
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            yield unfinished
            for path in [*unfinished.iterdir(), unfinished]:
                _flush(path)
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                target.rename(old)
            unfinished.rename(target)
            _flush(target.parent)
            shutil.rmtree(old, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise CheckpointError(
                f"cannot write {target}: {error}; make room or mend the folder, then give the same command again: it "
                "continues from the last whole checkpoint"
            ) from error

    def _remove_old(self, keep: str) -> None:
        for path in sorted(self.folder.glob("step-*"))[: -self.num_kept]:
            if path.name != keep:
                shutil.rmtree(path)


def newest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint of a run folder, None where there is none at all; damaged ones are told of.

    Raises:
        CheckpointError: all of them are damaged.
    """
    found = sorted((run / "checkpoints").glob("step-*"), reverse=True)
    for path in found:
        damage = find_damage(path)
        if damage is None:
            return path
        _log.warning("%s is damaged (%s); the checkpoint before it is used", path, damage)
    if found:
        raise CheckpointError(
            f"all {len(found)} checkpoints of {run} are damaged; copy them again, or remove {run / 'checkpoints'} to "
            "start anew"
        )
    return None


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint, compared with their checksums; None when all are whole."""
    try:
        sums = json.loads((checkpoint / CHECKSUMS_NAME).read_text(encoding="utf-8"))
        if not isinstance(sums, dict) or not {STATE_NAME, OPTIMIZER_NAME} <= sums.keys():
            return f"{CHECKSUMS_NAME} does not name every file"
        changed = [name for name, wanted in sums.items() if digest_file(checkpoint / name) != wanted]
    except (OSError, *NOT_JSON) as error:
        return str(error)
    return f"{changed[0]} differs from its checksum" if changed else None


def _step_name(step: int) -> str:
    return f"step-{step:08d}"


def _flush(path: Path) -> None:
    """Have the disk hold a file, or the entries of a folder, before anything is built on it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_progress(path: Path) -> Progress:
    row = json.loads(path.read_text(encoding="utf-8"))
    return Progress(int(row["step"]), float(row["best_score"]), int(row["best_step"]))


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
