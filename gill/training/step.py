"""One optimiser step over any number of processes and micro-batches, exact for all of them.

Each share's loss is divided by the whole batch's counts, so gradients add up instead of being averaged. In-batch
negatives are the whole batch's: with one micro-batch they are gathered inside the task's own forward; with several, the
retrieval rows of all are computed first, without gradient.

Shape legend: N = rows of the whole step, E = retrieval width.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from gill.config import Recipe
from gill.data import Share
from gill.distributed import gather_rows, sum_counts, sum_gradients
from gill.errors import TrainingError
from gill.types import Batch, LossBreakdown, TrainingTask, WholeBatch


def forward_backward(
    task: TrainingTask, batches: Sequence[Batch], share: Share, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Add this process's gradients, and those of the others, to the parameters.

    Args:
        batches: this process's micro-batches, in order.
        batch_size: N.

    Returns:
        The whole step's loss ("loss"), its parts by objective, and the share of texts that were cut ("cut_texts").
    """
    batches = [batch.to(device) for batch in batches]
    counts = Counter[str]()  # `update` and not `+`, which drops what is zero here but not elsewhere
    for batch in batches:
        counts.update(task.label_counts(batch))
    label_counts = {name: int(count) for name, count in sum_counts(counts, device).items()}
    whole = WholeBatch(batch_size, label_counts)
    if len(batches) > 1:
        whole = _with_embeddings(task, batches, whole)
    elif share.num_processes > 1:
        whole = dataclasses.replace(whole, gather=gather_rows)
    values = Counter[str]()
    for batch, part in zip(batches, share.slices(batch_size), strict=True):
        losses: LossBreakdown = task(dataclasses.replace(batch, whole=dataclasses.replace(whole, first_row=part.start)))
        losses.total.backward()
        values.update({"loss": losses.total.item(), **{name: value.item() for name, value in losses.parts.items()}})
        values.update({"cut_texts": len(batch.cut_rows) / batch_size})
    sum_gradients([parameter for _, parameter in trainable(task)])
    return sum_counts(values, device)


def update(
    task: TrainingTask, optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, values: dict[str, float]
) -> dict[str, float]:
    """Clip, step, and what the recipe does afterwards; returns learning rate and gradient norm.

    Raises:
        TrainingError: loss or gradient is not finite.
    """
    parameters = [parameter for _, parameter in trainable(task)]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, recipe.grad_clip))
    if not math.isfinite(norm) or not math.isfinite(values["loss"]):
        raise TrainingError(
            f"step {step + 1}: loss {values['loss']}, gradient norm {norm}; lower the learning rate, or look at the "
            "samples of this step (the last checkpoint is from before it)"
        )
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * group["rate"] * recipe.learning_rate_factor(step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    task.after_update()
    return {"learning_rate": recipe.learning_rate * recipe.learning_rate_factor(step), "grad_norm": norm}


def build_optimizer(task: TrainingTask, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over what trains and nothing else, in its order; a group for each run of parameters of one rate."""
    parameters = [parameter for _, parameter in trainable(task)]
    rows = {id(parameter) for parameter in task.token_rows()}
    rates = [recipe.token_rate if id(parameter) in rows else 1.0 for parameter in parameters]
    runs = itertools.groupby(zip(rates, parameters, strict=True), key=lambda pair: pair[0])
    return torch.optim.AdamW(
        [{"params": [parameter for _, parameter in run], "rate": rate} for rate, run in runs],
        lr=recipe.learning_rate,
        betas=(recipe.betas[0], recipe.betas[1]),
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        # A quarter of the time on a CPU. Elsewhere it wants the step counter on the device; checkpoints keep it here.
        fused=all(parameter.device.type == "cpu" for parameter in parameters) or None,
    )


def trainable(task: TrainingTask) -> list[tuple[str, nn.Parameter]]:
    """(name, parameter) of what trains, in the order of the modules."""
    return [(name, parameter) for name, parameter in task.named_parameters() if parameter.requires_grad]


def _with_embeddings(task: TrainingTask, batches: Sequence[Batch], whole: WholeBatch) -> WholeBatch:
    """The whole step's retrieval rows, for a family that has any."""
    rows = [task.embed(batch) for batch in batches]
    given = [each for each in rows if each is not None]
    if not given:
        return whole
    text_NE, _ = gather_rows(torch.cat([each.text for each in given]))
    image_NE, _ = gather_rows(torch.cat([each.image for each in given]))
    return dataclasses.replace(whole, text_embeddings=text_NE, image_embeddings=image_NE)
