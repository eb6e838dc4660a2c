"""A step does nothing twice: what the original computed three times, or for nobody, is counted here."""

import dataclasses
from typing import Any

import pytest
import torch

from gill.models.gill import task as gill_task
from gill.types import Batch
from tests.models.gill.tiny_gill import tiny_batch, tiny_task


def with_pixels(batch: Batch) -> Batch:
    """The batch with pictures instead of stored features."""
    return dataclasses.replace(batch, images=torch.randn(len(batch), 3, 32, 32))


def test_the_tower_sees_each_picture_once() -> None:
    task = tiny_task(dtype="float32")
    seen: list[int] = []
    task.model.vision.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    batch = with_pixels(tiny_batch(task.model))
    task(batch)
    assert sum(seen) == len(batch)
    task.evaluate(batch)
    assert sum(seen) == 2 * len(batch)


@pytest.mark.parametrize("is_paired", [False, True])
def test_the_language_model_reads_each_position_once_and_hardly_a_pad(is_paired: bool) -> None:
    task = tiny_task(dtype="float32")
    cells: list[int] = []

    def count(module: object, args: object, kwargs: dict[str, Any]) -> None:
        cells.append(kwargs["inputs_embeds"].shape[:2].numel())

    task.model.language.model.base_model.register_forward_pre_hook(count, with_kwargs=True)
    batch = tiny_batch(task.model, is_paired)
    task(batch)
    assert len(cells) == 3  # captioning; texts up to their first [IMG]; the rest, once for retrieval and conditioning
    assert sum(cells) <= len(task.captioning_rows(batch).ids) + len(task.text_rows(batch).ids)


def test_logits_are_computed_where_something_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task(dtype="float32")
    num_states: list[int] = []
    exact = gill_task.token_cross_entropy

    def count(hidden: torch.Tensor, *others: Any) -> torch.Tensor:
        num_states.append(len(hidden))
        return exact(hidden, *others)

    monkeypatch.setattr(gill_task, "token_cross_entropy", count)
    batch = tiny_batch(task.model)
    losses = task(batch)
    assert sum(num_states) == sum(losses.label_counts.values())


def test_the_parts_are_not_the_total() -> None:
    task = tiny_task(captioning_weight=0.5, text_weight=0.25, contrastive_weight=2.0, conditioning_weight=3.0)
    losses = task(tiny_batch(task.model))
    part = losses.parts
    total = 0.5 * part["captioning"] + 0.25 * part["text"] + 2 * part["contrastive"] + 3 * part["conditioning"]
    torch.testing.assert_close(losses.total.detach(), total)
    assert part["contrastive"] < losses.total / 4
