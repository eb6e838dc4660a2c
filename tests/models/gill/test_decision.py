"""The decision head beside a model: there and back, and refused where it does not belong."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gill.errors import CheckpointError, MissingCheckpointError
from gill.mappers import DecisionHead
from gill.models.gill import load_decision, read_decision, save_decision, write_decision

ROWS = torch.arange(12.0).view(3, 4)


def test_a_head_there_and_back_says_the_same(tmp_path: Path) -> None:
    head, states = DecisionHead(4).eval(), torch.randn(5, 4)
    save_decision(tmp_path, head, ROWS, {"macro_f1": 0.5})
    assert torch.equal(load_decision(tmp_path, ROWS)(states), head(states))
    assert not load_decision(tmp_path, ROWS.double()).training
    write_decision(tmp_path / "decision_model.pth.tar", head)
    assert torch.equal(read_decision(tmp_path / "decision_model.pth.tar")(states), head(states))


def test_a_head_of_another_training_is_refused(tmp_path: Path) -> None:
    save_decision(tmp_path, DecisionHead(4), ROWS, {})
    with pytest.raises(CheckpointError, match="other \\[IMG\\] rows"):
        load_decision(tmp_path, ROWS + 1)


def test_no_head_and_damaged_heads_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingCheckpointError, match="train_decision_model"):
        load_decision(tmp_path, ROWS)
    save_decision(tmp_path, DecisionHead(4), ROWS, {})
    weights = tmp_path / "decision.safetensors"
    save_file({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, weights)
    with pytest.raises(CheckpointError, match="wanted weight"):
        load_decision(tmp_path, ROWS)
    weights.write_bytes(b"\x00" * 20)
    with pytest.raises(CheckpointError, match="damaged"):
        load_decision(tmp_path, ROWS)
    (tmp_path / "decision.json").write_text("[]")
    save_file({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, weights)
    with pytest.raises(CheckpointError, match="holds no settings but list"):
        load_decision(tmp_path, ROWS)
