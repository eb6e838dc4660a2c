"""The exact step equals a literal restatement, in float64 and on every supported kind of language model."""

import pytest
import torch
from torch import Tensor

from gill.backbones import LANGUAGE_FAMILIES
from gill.errors import ShapeError
from gill.models.gill import GillTask
from gill.parameters import trainable_parameters
from gill.types import Batch, Sample
from tests.models.gill.plain_step import PlainStep
from tests.models.gill.tiny_gill import tiny_batch, tiny_task

TOLERANCE = 1e-10


def gradients(task: GillTask) -> dict[str, Tensor]:
    """Copies of all gradients, zeros where none arrived."""
    own = trainable_parameters(task)
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in own.items()}


def assert_same_step(task: GillTask, batch: Batch) -> None:
    """Losses and gradients of all that trains agree with the restatement."""
    task.zero_grad()
    plain = PlainStep(task.model).losses(batch)
    plain["total"].backward()
    wanted = gradients(task)
    task.zero_grad()
    ours = task(batch)
    ours.total.backward()
    found = gradients(task)
    for name, value in {**ours.parts, "total": ours.total}.items():
        torch.testing.assert_close(value, plain[name], rtol=TOLERANCE, atol=TOLERANCE, msg=name)
    for name in wanted:
        error = (found[name] - wanted[name]).norm() / wanted[name].norm().clamp(min=1e-30)
        assert error < TOLERANCE or wanted[name].norm() == found[name].norm() == 0, f"{name}: {error:.1e}"


@pytest.mark.parametrize("is_paired", [False, True], ids=["single", "paired"])
@pytest.mark.parametrize("family", LANGUAGE_FAMILIES)
def test_the_exact_step_equals_the_plain_one(family: str, is_paired: bool) -> None:
    task = tiny_task(family)
    assert_same_step(task, tiny_batch(task.model, is_paired))


@pytest.mark.parametrize("is_paired", [False, True], ids=["single", "paired"])
@pytest.mark.parametrize("family", ["opt", "llama"])
def test_texts_that_hold_pictures_agree_too(family: str, is_paired: bool) -> None:
    task = tiny_task(family, image_brackets=("(", ")"))
    assert_same_step(task, tiny_batch(task.model, is_paired, context_at=(0, 1)))


@pytest.mark.parametrize("is_paired", [False, True], ids=["single", "paired"])
def test_a_prefix_before_every_text_agrees(is_paired: bool) -> None:
    task = tiny_task(input_prefix="A picture of")
    assert_same_step(task, tiny_batch(task.model, is_paired))


@pytest.mark.parametrize("is_paired", [False, True], ids=["single", "paired"])
def test_fromage_agrees(is_paired: bool) -> None:
    changes = {"num_img_tokens": 1, "img_token_name": "[RET]", "joins_text": False, "drops_second_bos": False}
    task = tiny_task(conditioning_weight=0.0, **changes)
    assert_same_step(task, tiny_batch(task.model, is_paired))


@pytest.mark.parametrize("mapper", ["linear", "mlp", "transformer_encoder"])
def test_every_mapper_agrees(mapper: str) -> None:
    task = tiny_task(mapper=mapper)
    assert_same_step(task, tiny_batch(task.model))


def test_weights_of_the_objectives_count() -> None:
    task = tiny_task(captioning_weight=0.3, text_weight=0.7, contrastive_weight=1.9, conditioning_weight=0.2)
    assert_same_step(task, tiny_batch(task.model))


def test_a_batch_of_contexts_only_has_no_captioning_loss() -> None:
    task = tiny_task()
    losses = task(tiny_batch(task.model, context_at=(0, 1, 2, 3)))
    assert losses.parts["captioning"] == 0
    assert losses.label_counts["captioning"] == 0
    losses.total.backward()


def test_only_the_img_tokens_of_captions_carry_gradient() -> None:
    task = tiny_task(dtype="float32")
    batch = tiny_batch(task.model)
    hidden = task.model.hidden(task.text_rows(batch), task.model.visual_prefix(batch.images))
    assert not hidden.frozen.requires_grad
    assert len(hidden.frozen) == int(batch.text_lengths.sum())
    assert len(hidden.live) == len(batch) * task.model.config.num_img_tokens


def test_rows_longer_than_the_language_model_reads_are_refused() -> None:
    task = tiny_task(dtype="float32")
    long = Sample(torch.full((254,), 5), torch.zeros(24), conditioning_ids=torch.full((12,), 5))
    with pytest.raises(ShapeError, match="a row has 258 tokens, the language model reads 256; lower max_tokens"):
        task.embed(Batch.from_samples([long]))


def test_the_step_runs_in_bfloat16_with_float32_masters() -> None:
    task = tiny_task(dtype="bfloat16")
    losses = task(tiny_batch(task.model))
    losses.total.backward()
    assert {p.dtype for p in trainable_parameters(task).values()} == {torch.float32}
    reference = tiny_task(dtype="float32")
    wanted = reference(tiny_batch(reference.model)).total
    torch.testing.assert_close(losses.total, wanted, rtol=0.02, atol=0.02)
