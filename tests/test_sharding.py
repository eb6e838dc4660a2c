"""A frozen language model of which every process keeps a share: the same losses, and runs that move either way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gill.backbones.tiny import LANGUAGE_FAMILIES, tiny_language_model
from gill.data import BatchOrder, FlatlandSource, Share, training_steps
from gill.distributed import World, shard_layers
from gill.models import find_family
from gill.parameters import frozen_checksums
from gill.training import build_optimizer, forward_backward, trainable, update
from main import ERROR_STATUS, main
from tests.groups import run_group, run_main

CPU = torch.device("cpu")
PRESET = find_family("gill").presets["debug"]
NUM_STEPS = 3


def losses(world: World, family: str, is_sharded: bool) -> dict[str, object]:
    """Losses of a few updates, the last gradients, and how many of the layers' numbers this process holds."""
    settings = replace(PRESET.model, language=f"tiny:{family}")
    task, encoder = find_family("gill").build(settings, CPU, 64, 0)
    if is_sharded:
        shard_layers(task, task.frozen_layers(), CPU)
    before = frozen_checksums(task)
    share, recipe = Share(world.rank, world.size, 2), replace(PRESET.recipe, batch_size=8, warmup_steps=0)
    source, optimizer, found = FlatlandSource("train", 100, 0, "none"), build_optimizer(task, recipe), []
    for part in training_steps(source, encoder, BatchOrder(100, 8, 0), share, range(NUM_STEPS), 0.5):
        values = forward_backward(task, part.batches, share, 8, CPU)
        grads = {name: p.grad.clone() for name, p in trainable(task) if p.grad is not None}
        update(task, optimizer, recipe, part.step, values)
        found.append(values)
    assert frozen_checksums(task) == before
    held = sum((p.to_local() if is_sharded else p).numel() for p in task.frozen_layers().parameters())
    return {"losses": found, "grads": grads, "held": held}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["opt", "opt-post-norm", "llama"])
def test_a_sharded_model_has_the_same_losses_and_gradients(tmp_path: Path, family: str) -> None:
    whole = losses(World(), family, is_sharded=False)
    sharded = run_group(2, losses, tmp_path, family, True)
    assert sum(each["held"] for each in sharded) == whole["held"]
    assert max(each["held"] for each in sharded) <= 0.6 * whole["held"]  # type: ignore[operator]
    for each in sharded:
        for one, other in zip(whole["losses"], each["losses"], strict=True):  # type: ignore[call-overload]
            assert one == pytest.approx(other, rel=1e-5)
        for name, gradient in whole["grads"].items():  # type: ignore[attr-defined]
            assert torch.linalg.vector_norm(each["grads"][name] - gradient) <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("family", LANGUAGE_FAMILIES)
def test_every_familys_layers_are_found(family: str) -> None:
    model = tiny_language_model(family)
    assert len(model.layers) == 2
    assert all(any(parameter.dim() == 2 for parameter in layer.parameters()) for layer in model.layers)


def command(folder: Path, name: str, steps: int, *more: str) -> list[str]:
    quick = ["--val-batch-size=4", "--val-steps-per-epoch=2", "--print-freq=1", "--lr-warmup-steps=0", "-b", "8"]
    place = [f"--log-base-dir={folder}", f"--exp-name={name}"]
    return ["--preset=debug", f"--steps-per-epoch={steps}", *place, *quick, *more]


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_moves_between_sharded_and_whole(tmp_path: Path) -> None:
    """Validation included, with captions of two pictures and drawings: every process runs the same layers."""
    sharded = ["--set", "num_captions=2", "num_panels=2", "shard_language=true"]
    whole = ["--set", "num_captions=2", "num_panels=2"]
    assert main(command(tmp_path, "reference", 4, "--epochs=2", *whole)) == 0
    for name, first, then in (("up", whole, sharded), ("down", sharded, whole)):
        start, stop = command(tmp_path, f"{name}-start", 4, *first), command(tmp_path, name, 4, "--epochs=2", *then)
        log = tmp_path / "log.txt"
        assert run_main(2 if first is sharded else 1, start, log)[0] == [0] * (2 if first is sharded else 1)
        resumed = [*stop, f"--resume={tmp_path / f'{name}-start'}"]
        statuses, said = run_main(2 if then is sharded else 1, resumed, log)
        assert set(statuses) == {0}, said
        for one, other in zip(metrics(tmp_path / "reference")[-5:], metrics(tmp_path / name), strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_one_process_has_nothing_to_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, "run", 2, "--set", "shard_language=true")) == ERROR_STATUS
    assert "needs several processes" in capsys.readouterr().err
