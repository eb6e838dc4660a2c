"""The optimiser step: shares add up, only what should train does, and the schedule is the recipe's."""

from dataclasses import replace

import pytest
import torch

from gill.config import Recipe
from gill.data import BatchOrder, FlatlandSource, Share, training_steps
from gill.errors import TrainingError
from gill.models import find_family
from gill.parameters import frozen_hashes
from gill.training import build_optimizer, forward_backward, trainable, update

CPU = torch.device("cpu")
PRESET = find_family("gill").presets["debug"]
MODEL = replace(PRESET.model, frozen_dtype="float64")


def build():  # type: ignore[no-untyped-def]
    return find_family("gill").build(MODEL, CPU, 64, 0)


def gradients(num_micro_batches: int, pair_probability: float) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    task, encoder = build()
    share = Share(0, 1, num_micro_batches)
    order = BatchOrder(100, 8, 0)
    source = FlatlandSource("train", 100, 0, "none")
    (step,) = training_steps(source, encoder, order, share, range(1), pair_probability)
    values = forward_backward(task, step.batches, share, 8, CPU)
    return values, {name: p.grad for name, p in trainable(task) if p.grad is not None}


@pytest.mark.parametrize("pair_probability", [0.0, 1.0])
def test_micro_batches_change_neither_loss_nor_gradient(pair_probability: float) -> None:
    values, whole = gradients(1, pair_probability)
    cut_values, cut = gradients(4, pair_probability)
    assert cut_values == pytest.approx(values, rel=1e-10)
    assert whole.keys() == cut.keys()
    for name, gradient in whole.items():
        assert torch.allclose(cut[name], gradient, rtol=1e-9, atol=1e-12), name


def test_only_what_should_train_changes() -> None:
    task, encoder = build()
    before, start = frozen_hashes(task), {name: p.detach().clone() for name, p in trainable(task)}
    recipe = replace(PRESET.recipe, warmup_steps=0, batch_size=8)
    optimizer = build_optimizer(task, recipe)
    source, share = FlatlandSource("train", 100, 0, "none"), Share()
    for part in training_steps(source, encoder, BatchOrder(100, 8, 0), share, range(2)):
        update(task, optimizer, recipe, part.step, forward_backward(task, part.batches, share, 8, CPU))
    assert frozen_hashes(task) == before
    assert all(not torch.equal(start[name], p) for name, p in trainable(task))
    assert len(optimizer.state) == len(start)
    norms = torch.linalg.vector_norm(task.model.img_tokens.input_rows, dim=-1)
    wanted = torch.linalg.vector_norm(task.model.language.table[: task.model.vocabulary.num_words], dim=-1).mean()
    assert torch.allclose(norms, wanted.expand_as(norms), rtol=1e-5)  # the recipe's rescaling came last


def test_the_learning_rate_follows_the_recipe() -> None:
    task, encoder = build()
    recipe = replace(PRESET.recipe, warmup_steps=2, decay_epochs=1, steps_per_epoch=2, batch_size=4)
    optimizer, share, rates = build_optimizer(task, recipe), Share(), []
    source = FlatlandSource("train", 100, 0, "none")
    for part in training_steps(source, encoder, BatchOrder(100, 4, 0), share, range(5)):
        values = forward_backward(task, part.batches, share, 4, CPU)
        rates.append(update(task, optimizer, recipe, part.step, values)["learning_rate"])
    assert rates == pytest.approx([0, 0.0005, 0.001, 0.001, 0.0001])


def test_updates_below_bfloat16s_resolution_still_count() -> None:
    task, _ = find_family("gill").build(replace(PRESET.model, frozen_dtype="bfloat16"), CPU, 64, 0)
    recipe = replace(PRESET.recipe, learning_rate=1e-6, warmup_steps=0)  # a bfloat16 weight of 1 needs steps of 4e-3
    optimizer, before = build_optimizer(task, recipe), {name: p.detach().clone() for name, p in trainable(task)}
    for _, parameter in trainable(task):
        parameter.grad = torch.ones_like(parameter)
    update(task, optimizer, recipe, 0, {"loss": 1.0})
    for name, parameter in trainable(task):
        assert parameter.dtype == torch.float32
        assert (parameter != before[name]).float().mean() > 0.99, name


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    task, _ = build()
    with pytest.raises(TrainingError, match="step 5: loss nan"):
        update(task, build_optimizer(task, Recipe()), Recipe(), 4, {"loss": float("nan")})


def test_token_rows_have_a_rate_of_their_own() -> None:
    """Adam's first update is the learning rate, whatever the gradient; decay and norm are left out of it."""
    task, _ = build()
    recipe = replace(PRESET.recipe, warmup_steps=0, weight_decay=0.0, token_rate=10.0, learning_rate=1e-3)
    optimizer = build_optimizer(task, recipe)
    before = {name: p.detach().clone() for name, p in trainable(task)}
    for _, parameter in trainable(task):
        parameter.grad = torch.ones_like(parameter)
    task.after_update = lambda: None  # type: ignore[method-assign]
    update(task, optimizer, replace(recipe, grad_clip=1e9), 0, {"loss": 0.0})
    moved = {name: (before[name] - p.detach()).abs().max().item() for name, p in trainable(task)}
    assert moved.pop("model.img_tokens.input_rows") == pytest.approx(1e-2, rel=1e-6)
    assert all(distance == pytest.approx(1e-3, rel=1e-3) for distance in moved.values())
    assert [name for name, _ in trainable(task)] == [
        name for group in optimizer.param_groups for p in group["params"] for name, q in trainable(task) if p is q
    ]
