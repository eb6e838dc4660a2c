"""Freezing, counting, saving and comparing parameters."""

import pytest
import torch
from torch import nn

from gill.errors import CheckpointError
from gill.parameters import (
    count_trainable,
    freeze,
    frozen_hashes,
    load_trainable_state,
    parameter_table,
    tensor_hash,
    trainable_state,
)


@pytest.fixture
def module() -> nn.Module:
    """A frozen layer and one that trains."""
    return nn.Sequential(freeze(nn.Linear(2, 3)), nn.Linear(3, 1))


def test_only_what_trains_is_counted_and_saved(module: nn.Module) -> None:
    assert count_trainable(module) == 4
    assert set(trainable_state(module)) == {"1.weight", "1.bias"}
    assert [row.is_trainable for row in parameter_table(module)] == [False, False, True, True]


def test_hashes_see_one_changed_bit(module: nn.Module) -> None:
    before = frozen_hashes(module)
    assert set(before) == {"0.weight", "0.bias"}
    with torch.no_grad():
        module[0].bias[0] = torch.nextafter(module[0].bias[0], torch.tensor(9.0))
    after = frozen_hashes(module)
    assert (before["0.weight"] == after["0.weight"], before["0.bias"] == after["0.bias"]) == (True, False)
    assert tensor_hash(torch.zeros(2)) != tensor_hash(torch.zeros(1, 2))
    assert tensor_hash(torch.zeros(2, dtype=torch.bfloat16)) != tensor_hash(torch.zeros(2, dtype=torch.float16))


def test_state_that_does_not_fit_changes_nothing(module: nn.Module) -> None:
    state = trainable_state(module)
    for wrong, message in (
        ({"1.weight": torch.ones(1, 3)}, "missing 1.bias, unknown nothing"),
        ({**state, "x": torch.ones(1)}, "unknown x"),
        ({**state, "1.bias": torch.ones(2)}, r"1.bias is \(2,\), the model has \(1,\)"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_trainable_state(module, wrong)
    assert all(torch.equal(state[name], value) for name, value in trainable_state(module).items())
