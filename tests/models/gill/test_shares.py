"""Shares of a batch add up to the whole: losses and gradients, however it is cut."""

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from gill.models.gill import GillTask
from gill.parameters import trainable_parameters
from gill.types import Batch, WholeBatch
from tests.models.gill.tiny_gill import tiny_batch, tiny_task


def cut(batch: Batch, start: int, stop: int, whole: WholeBatch) -> Batch:
    """Rows start to stop as a share of the whole."""
    return dataclasses.replace(
        batch,
        text_ids=batch.text_ids[start:stop],
        text_lengths=batch.text_lengths[start:stop],
        images=batch.images[start:stop],
        conditioning_ids=batch.conditioning_ids[start:stop],
        whole=dataclasses.replace(whole, first_row=start),
    )


def gradients(task: GillTask) -> dict[str, Tensor]:
    """All gradients."""
    return {name: p.grad.clone() for name, p in trainable_parameters(task).items() if p.grad is not None}


@pytest.mark.parametrize(("is_paired", "edges"), [(False, (0, 1, 2, 4)), (False, (0, 3, 4)), (True, (0, 2, 4))])
def test_shares_add_up(is_paired: bool, edges: tuple[int, ...]) -> None:
    task = tiny_task()
    batch = tiny_batch(task.model, is_paired)
    one = task(batch)
    one.total.backward()
    wanted = gradients(task)
    embeddings = task.embed(batch)
    whole = WholeBatch(len(batch), task.label_counts(batch), embeddings.text, embeddings.image)
    task.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for start, stop in itertools.pairwise(edges):
        share = task(cut(batch, start, stop, whole))
        share.total.backward()
        total += share.total.detach()
    torch.testing.assert_close(total, one.total.detach(), rtol=1e-10, atol=1e-10)
    for name, found in gradients(task).items():
        torch.testing.assert_close(found, wanted[name], rtol=1e-9, atol=1e-10, msg=name)


def test_rows_gathered_from_other_processes_are_negatives() -> None:
    task = tiny_task()
    batch = tiny_batch(task.model)
    wanted = task(batch).parts["contrastive"]
    embeddings = task.embed(batch)
    whole = WholeBatch(4, task.label_counts(batch))
    rows = iter([embeddings.text, embeddings.image])
    share = task(cut(batch, 2, 4, dataclasses.replace(whole, gather=lambda own: (next(rows), 2))))
    with_first_row = task(
        cut(batch, 2, 4, dataclasses.replace(whole, text_embeddings=embeddings.text, image_embeddings=embeddings.image))
    )
    torch.testing.assert_close(share.parts["contrastive"], wanted / 2)
    torch.testing.assert_close(share.total, with_first_row.total)


def test_label_counts_are_those_of_the_losses() -> None:
    task = tiny_task()
    for is_paired in (False, True):
        batch = tiny_batch(task.model, is_paired, context_at=(1,))
        assert task.label_counts(batch) == task(batch).label_counts


def test_evaluation_agrees_with_training() -> None:
    task = tiny_task()
    batch = tiny_batch(task.model)
    evaluation = task.evaluate(batch)
    torch.testing.assert_close(evaluation.losses.total, task(batch).total.detach())
    assert evaluation.num_tokens == task.label_counts(batch)["captioning"]
    assert evaluation.num_top1 <= evaluation.num_top5 <= evaluation.num_tokens
    torch.testing.assert_close(evaluation.embeddings.text.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert evaluation.conditioning.shape == (4, 12, 16)
