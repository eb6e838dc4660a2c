"""A step is the same step however many processes and micro-batches carry it out: losses, gradients, trained weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gill.data import BatchOrder, FlatlandSource, Share, StepShare, is_paired_step, training_steps
from gill.distributed import World
from gill.models import find_family
from gill.training import build_optimizer, forward_backward, trainable, update
from gill.types import TrainingTask
from tests.groups import run_group

CPU = torch.device("cpu")
PRESET = find_family("gill").presets["debug"]
# 4 processes x 4 micro-batches of one pair of captions each.
RECIPE = replace(PRESET.recipe, batch_size=32, warmup_steps=3, pair_probability=0.5)
OBJECTIVES = {"captioning", "text", "contrastive", "conditioning"}
TOLERANCES = {"float64": 1e-10, "float32": 1e-5}
MICRO_BATCHES = (1, 2, 4)
STEPS = (0, 1)  # captions one by one, and joined in pairs: the coins of seed 0
NUM_STEPS = 20

Step = tuple[dict[str, float], dict[str, Tensor]]  # losses by objective; gradients or weights by name


def reading(share: Share, dtype: str, steps: range) -> tuple[TrainingTask, list[StepShare]]:
    """A fresh task, and this process's share of `steps`."""
    task, encoder = find_family("gill").build(replace(PRESET.model, frozen_dtype=dtype), CPU, 64, 0)
    source = FlatlandSource("train", 100, 0, "none")
    order = BatchOrder(len(source), RECIPE.batch_size, 0)
    return task, list(training_steps(source, encoder, order, share, steps, RECIPE.pair_probability))


def gradients(share: Share, dtype: str, step: int) -> Step:
    """Losses and gradients of one step, before anything is clipped."""
    task, (part,) = reading(share, dtype, range(step, step + 1))
    values = forward_backward(task, part.batches, share, RECIPE.batch_size, CPU)
    return values, {name: p.grad.clone() for name, p in trainable(task) if p.grad is not None}


def trained(share: Share) -> Step:
    """Losses and weights of many updates."""
    task, parts = reading(share, "float64", range(NUM_STEPS))
    optimizer, losses = build_optimizer(task, RECIPE), {}
    for part in parts:
        values = forward_backward(task, part.batches, share, RECIPE.batch_size, CPU)
        update(task, optimizer, RECIPE, part.step, values)
        losses[f"step {part.step}"] = values["loss"]
    return losses, {name: p.detach().clone() for name, p in trainable(task)}


def all_steps(world: World, counts: tuple[int, ...] = MICRO_BATCHES) -> dict[tuple[int, str, int], Step]:
    """One step in every way: by micro-batches, dtype and kind of step."""
    shares = {count: Share(world.rank, world.size, count) for count in counts}
    return {(n, d, s): gradients(share, d, s) for n, share in shares.items() for d in TOLERANCES for s in STEPS}


def all_runs(world: World) -> dict[int, Step]:
    """A short training with one and with the most micro-batches."""
    return {count: trained(Share(world.rank, world.size, count)) for count in (1, MICRO_BATCHES[-1])}


@cache
def plain_steps() -> dict[tuple[int, str, int], Step]:
    """One process, one micro-batch."""
    return all_steps(World(), (1,))


@cache
def plain_run() -> Step:
    """The same for the short training."""
    return trained(Share())


def distance(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||."""
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b))


def check_steps(found: dict[tuple[int, str, int], Step]) -> None:
    for (count, dtype, step), (values, grads) in found.items():
        wanted_values, wanted = plain_steps()[1, dtype, step]
        assert values == pytest.approx(wanted_values, rel=TOLERANCES[dtype]), (count, dtype, step)
        assert wanted_values.keys() >= OBJECTIVES and grads.keys() == wanted.keys()
        worst = max((distance(grads[name], wanted[name]), name) for name in wanted)
        assert worst[0] <= TOLERANCES[dtype], (count, dtype, step, worst)


def check_runs(found: dict[int, Step]) -> None:
    losses, weights = plain_run()
    for count, (own_losses, own) in found.items():
        assert own_losses == pytest.approx(losses, rel=1e-8), count
        assert max(distance(own[name], weights[name]) for name in weights) <= 1e-8, count


def test_both_kinds_of_step_are_compared() -> None:
    assert [is_paired_step(0, step, RECIPE.pair_probability) for step in STEPS] == [False, True]
    for (_, dtype, _), (values, grads) in plain_steps().items():
        assert all(values[name] > 0 for name in OBJECTIVES)
        assert all(grad.dtype == getattr(torch, dtype) and grad.norm() > 0 for grad in grads.values())


def test_micro_batches_change_nothing() -> None:
    check_steps(all_steps(World(), MICRO_BATCHES[1:]))
    check_runs({4: trained(Share(0, 1, 4))})


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_processes_change_nothing(tmp_path: Path, size: int) -> None:
    for rank, found in enumerate(run_group(size, all_steps, tmp_path / "steps")):
        assert len(found) == len(MICRO_BATCHES) * len(TOLERANCES) * len(STEPS), rank
        check_steps(found)
    for found in run_group(size, all_runs, tmp_path / "runs"):
        check_runs(found)
