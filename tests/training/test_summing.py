"""A continued run sums gradients in the order of the undisturbed one, also where the order shows: three processes.

Floating-point sums of two do not depend on their order, so two processes would not tell. DDP as it comes does not pass:
it proves that the comparison can fail. `docs/adr/0006-one-sum-of-gradients.md` says what follows from the third case.
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from gill.data import BatchOrder, FlatlandSource, Share, training_steps
from gill.distributed import World
from gill.models import find_family
from gill.training import build_optimizer, forward_backward, trainable, update
from tests.groups import run_group

CPU = torch.device("cpu")
BATCH_SIZE, NUM_PROCESSES = 12, 3
CASES = [  # settings of DDP, or None for ours; whether a continued run keeps its bytes
    pytest.param(None, True, id="ours"),
    pytest.param({}, False, id="ddp"),
    pytest.param({"find_unused_parameters": True}, True, id="ddp-that-looks-for-unused"),
]


class Trainer:
    """A task of the debug preset, its optimiser, and the sum over processes: ours, or DDP's by its settings."""

    def __init__(self, share: Share, ddp_settings: dict[str, Any] | None) -> None:
        preset = find_family("gill").presets["debug"]
        self.recipe = replace(preset.recipe, batch_size=BATCH_SIZE, warmup_steps=0)
        self.task, self.encoder = find_family("gill").build(preset.model, CPU, 64, 0)
        self.share, self.optimizer = share, build_optimizer(self.task, self.recipe)
        self.model: Any = self.task
        if ddp_settings is not None:
            self.model = DistributedDataParallel(self.task, **ddp_settings)
            self.model.register_comm_hook(None, add_up)  # a sum, where DDP's own is a mean
            self.model.label_counts = self.task.label_counts

    def train(self, parts: Sequence[Any]) -> None:
        """Some steps, by the trainer's own functions; DDP has summed by the end of the backward pass."""
        is_summed = self.model is not self.task
        for part in parts:
            with mock.patch("gill.training.step.sum_gradients") if is_summed else nullcontext():
                values = forward_backward(self.model, part.batches, self.share, BATCH_SIZE, CPU)
            update(self.task, self.optimizer, self.recipe, part.step, values)


def add_up(state: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """DDP's hook for a sum."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


def changed_by_continuing(world: World, ddp_settings: dict[str, Any] | None) -> list[str]:
    """Names of weights that differ after four steps in one go and after two, a fresh start, and two more."""
    share = Share(world.rank, world.size)
    undisturbed, continued = Trainer(share, ddp_settings), Trainer(share, ddp_settings)
    source, order = FlatlandSource("train", 100, 0, "none"), BatchOrder(100, BATCH_SIZE, 0)
    parts = list(training_steps(source, undisturbed.encoder, order, share, range(4), 0.5))
    undisturbed.train(parts[:2])
    continued.task.load_state_dict(undisturbed.task.state_dict())
    continued.optimizer.load_state_dict(copy.deepcopy(undisturbed.optimizer.state_dict()))
    undisturbed.train(parts[2:])
    continued.train(parts[2:])
    wanted = dict(trainable(undisturbed.task))
    return [name for name, weight in trainable(continued.task) if not torch.equal(weight, wanted[name])]


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "keeps_bytes"), CASES)
def test_continuing_changes_no_byte(tmp_path: Path, settings: dict[str, Any] | None, keeps_bytes: bool) -> None:
    found = run_group(NUM_PROCESSES, changed_by_continuing, tmp_path, settings)
    assert all(names == found[0] for names in found)
    assert (not found[0]) == keeps_bytes, found[0]
