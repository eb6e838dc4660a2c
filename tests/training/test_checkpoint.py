"""Checkpoints: whole or not at all, the right ones kept, and read back to the bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gill.errors import CheckpointError, MissingCheckpointError
from gill.training import Checkpoints, ModelFiles, Progress


class Toy:
    """A model of one row, its optimiser, and how it is saved."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.arange(3.0))
        self.optimizer = torch.optim.AdamW([self.weight], lr=0.1)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.weight.square().sum().backward()
        self.optimizer.step()

    def files(self) -> ModelFiles:
        return ModelFiles(self._save, self._load)

    def _save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        save_file({"weight": self.weight.detach()}, folder / "weights.safetensors")

    def _load(self, folder: Path) -> None:
        self.weight.data.copy_(load_file(folder / "weights.safetensors")["weight"])


def test_a_checkpoint_continues_to_the_bit(tmp_path: Path) -> None:
    toy = Toy()
    toy.step()
    saved = Checkpoints(tmp_path, toy.files()).save(Progress(1, 0.5, 1), ["weight"], toy.optimizer)
    toy.step()
    other = Toy()
    assert Checkpoints(tmp_path, other.files()).load(saved, ["weight"], other.optimizer) == Progress(1, 0.5, 1)
    other.step()
    assert torch.equal(other.weight, toy.weight)


def test_a_save_that_was_killed_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Toy()
    toy.step()
    checkpoints = Checkpoints(tmp_path, toy.files())
    first = checkpoints.save(Progress(1), ["weight"], toy.optimizer)

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        checkpoints.save(Progress(2), ["weight"], toy.optimizer)
    assert checkpoints.newest() == first
    assert checkpoints.save(Progress(2), ["weight"], toy.optimizer) == checkpoints.newest()
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-00000001", "step-00000002"]


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    toy = Toy()
    checkpoints = Checkpoints(tmp_path, toy.files())
    for step in range(1, 6):
        toy.step()
        checkpoints.save(Progress(step, 1.0, best_step=2), ["weight"], toy.optimizer)
    assert sorted(path.name[-1] for path in checkpoints.folder.iterdir()) == ["2", "4", "5"]


def test_the_last_k_are_kept(tmp_path: Path) -> None:
    toy = Toy()
    checkpoints = Checkpoints(tmp_path, toy.files(), num_kept=3)
    for step in range(1, 6):
        toy.step()
        checkpoints.save(Progress(step), ["weight"], toy.optimizer)
    assert sorted(path.name[-1] for path in checkpoints.folder.iterdir()) == ["3", "4", "5"]


def test_a_damaged_one_is_replaced_when_its_step_comes_again(tmp_path: Path) -> None:
    toy = Toy()
    checkpoints = Checkpoints(tmp_path, toy.files())
    toy.step()
    first = checkpoints.save(Progress(1), ["weight"], toy.optimizer)
    second = checkpoints.save(Progress(2), ["weight"], toy.optimizer)
    (second / "weights.safetensors").write_bytes(b"torn")
    assert checkpoints.newest() == first
    assert checkpoints.save(Progress(2), ["weight"], toy.optimizer) == checkpoints.newest() == second


def test_exporting_again_replaces(tmp_path: Path) -> None:
    toy = Toy()
    checkpoints = Checkpoints(tmp_path, toy.files())
    checkpoints.export("model")
    toy.step()
    checkpoints.export("model")
    assert torch.equal(load_file(tmp_path / "model" / "weights.safetensors")["weight"], toy.weight)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "model"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    toy = Toy()
    checkpoints = Checkpoints(tmp_path, toy.files())
    with pytest.raises(MissingCheckpointError, match="not a checkpoint of a training run"):
        checkpoints.load(tmp_path / "none", ["weight"], toy.optimizer)
    toy.step()
    saved = checkpoints.save(Progress(1), ["weight"], toy.optimizer)
    with pytest.raises(CheckpointError, match="of another model: it has exp_avg/weight"):
        checkpoints.load(saved, ["other"], toy.optimizer)
    (saved / "optimizer.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load(saved, ["weight"], toy.optimizer)
