"""The record of a run: settings, environment and git state, one line of numbers a step, TensorBoard, parameters.

Only the first process writes.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from gill.errors import NOT_JSON, ConfigError
from gill.files import write_bytes, write_json, write_text
from gill.parameters import ParameterRow

CONFIG_NAME, METRICS_NAME = "config.json", "metrics.jsonl"
_LIBRARIES = ("torch", "transformers", "diffusers", "safetensors", "numpy", "pillow")
# What may differ between a run and its continuation: it changes how the run is watched, not what it computes.
_FREE_SETTINGS = {
    "print_freq",
    "save_freq",
    "num_checkpoints",
    "frozen_check_freq",
    "num_workers",
    "num_micro_batches",
    "shard_language",
    "max_bad_fraction",
    "num_panels",
}


class RunLog:
    """The files of one run folder.

    Args:
        folder: the run folder.
        first_step: steps done so far; rows beyond it, of a run killed after its last checkpoint, are removed.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        self.folder, self.metrics = folder, folder / METRICS_NAME
        self._drop_rows_after(first_step)
        self._board = SummaryWriter(str(folder.resolve() / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row of `metrics.jsonl`, and the same scalars for TensorBoard."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.watch(step, values)

    def watch(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars for TensorBoard only: those that differ from run to run, such as speed."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """A picture as `panels/`, and for TensorBoard."""
        (self.folder / "panels").mkdir(exist_ok=True)
        picture.save(self.folder / "panels" / f"{name}-{step:08d}.png")
        self._board.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Flush everything."""
        self._board.close()

    def _drop_rows_after(self, step: int) -> None:
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_bytes().splitlines()  # the last one may be torn
        kept = [line for line in lines if 0 <= _step_of(line) <= step and step > 0]
        write_bytes(self.metrics, b"".join(line + b"\n" for line in kept))


def claim_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Take a run folder for these settings, new or to be continued.

    Raises:
        ConfigError: it belongs to a run with other settings; the message names them.
    """
    path = folder / CONFIG_NAME
    plain = json.loads(json.dumps(config))
    if path.is_file():
        changed = _differences(_read_settings(path), plain)
        if changed:
            raise ConfigError(f"{folder} belongs to a run with other settings ({changed}); choose another --exp-name")
        return
    write_json(path, plain)


def describe_environment(folder: Path, command: Sequence[str], repository: Path) -> None:
    """Write `environment.json` and, beside it, the uncommitted changes as `git.diff`."""
    versions = {name: _version(name) for name in _LIBRARIES}
    state = {
        "command": list(command),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "libraries": versions,
        "git_commit": _git(repository, "rev-parse", "HEAD").strip(),
    }
    write_json(folder / "environment.json", state)
    write_text(folder / "git.diff", _git(repository, "diff", "HEAD"))


def parameter_text(rows: Sequence[ParameterRow]) -> str:
    """The parameter table as text: what trains line by line, what is frozen as one sum."""
    trains = [row for row in rows if row.is_trainable]
    width = max((len(row.name) for row in trains), default=10)
    lines = [f"{row.name:{width}}  {row.num_values:>12,}  {'x'.join(map(str, row.shape)) or '1'}" for row in trains]
    num_trained, num_all = sum(row.num_values for row in trains), sum(row.num_values for row in rows)
    share = 100 * num_trained / max(num_all, 1)
    return "\n".join(
        [
            *lines,
            f"{'trainable':{width}}  {num_trained:>12,}",
            f"{'frozen':{width}}  {num_all - num_trained:>12,}",
            f"{share:.2f} % of {num_all:,} numbers train",
            "",
        ]
    )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after or name in _FREE_SETTINGS:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found.append(_differences(before, after, f"{prefix}{name}."))
        else:
            found.append(f"{prefix}{name}: {before!r}, now {after!r}")
    return ", ".join(text for text in found if text)


def _read_settings(path: Path) -> dict[str, Any]:
    """Raises: ConfigError, for anything but a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except NOT_JSON as error:
        raise ConfigError(f"{path} is damaged ({error}); copy it again, or choose another --exp-name") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} does not hold settings; choose another --exp-name")
    return found


def _step_of(line: bytes) -> int:
    """The step of a row of metrics, -1 for a line that is none."""
    try:
        row = json.loads(line)
        return int(row["step"])
    except (*NOT_JSON, TypeError, KeyError):
        return -1


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(repository: Path, *arguments: str) -> str:
    """What git says; empty without git or outside a checkout."""
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""
