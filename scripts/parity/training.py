"""The recorded training quantities, from our exact step: losses, labels, embeddings, accuracies, gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gill.models.gill import GillTask, TokenRows
from gill.types import IGNORED_LABEL, Batch, Evaluation
from scripts.parity.folder import ParityFolder

PREFIX = "A picture of"
_NUM_KEPT = 256  # recorded numbers of a gradient that is not recorded whole
Quantities = Iterator[tuple[str, np.ndarray | float | int]]


def training_quantities(parity: ParityFolder) -> Quantities:
    """Every recorded quantity but gradients of the single, prefixed and joined batches, by its key."""
    for case, prefix, is_paired in (("single", "", False), ("single_prefix", PREFIX, False), ("concat", "", True)):
        if f"{case}.total" in parity.golden:
            for key, value in _case(parity, parity.task(prefix), parity.batch(is_paired)):
                yield f"{case}.{key}", value


def gradient_quantities(parity: ParityFolder, is_paired: bool) -> Quantities:
    """Every recorded gradient quantity of one step, single or joined, by its key."""
    case = "concat" if is_paired else "single"
    task = parity.task()
    task.zero_grad()
    task(parity.batch(is_paired)).total.backward()
    yield from ((f"{case}.{key}", value) for key, value in _gradients(parity, case))


def _case(parity: ParityFolder, task: GillTask, batch: Batch) -> Quantities:
    evaluation = task.evaluate(batch)
    losses = evaluation.losses
    yield "total", float(losses.total)
    yield "captioning.lm_loss", float(losses.parts["captioning"])
    yield "retrieval.lm_loss", float(losses.parts["text"])
    yield "retrieval.contrastive", float(losses.parts["contrastive"])
    yield "captioning.labels", _labels(task.captioning_rows(batch), _padded_width(batch, task, visual=True))
    yield "retrieval.labels", _labels(task.text_rows(batch), _padded_width(batch, task, visual=False))
    yield from _retrieval(task, evaluation)
    yield "captioning.acc", 100 * np.array([evaluation.num_top1, evaluation.num_top5]) / evaluation.num_tokens
    if evaluation.conditioning is not None:
        yield "generation.lm_loss", float(losses.parts["text"])
        yield "generation.labels", _labels(task.text_rows(batch), _padded_width(batch, task, visual=False))
        yield "generation.l2", float(losses.parts["conditioning"])
        yield "generation.emb_mean", evaluation.conditioning.mean((1, 2)).numpy()
        yield "generation.emb_slice", evaluation.conditioning[:, ::11, ::96].numpy()


def _retrieval(task: GillTask, evaluation: Evaluation) -> Quantities:
    assert evaluation.embeddings is not None  # GILL and FROMAGe always retrieve
    text_BE, image_BE = evaluation.embeddings.text, evaluation.embeddings.image
    yield "retrieval.text_emb", text_BE.numpy()
    yield "retrieval.visual_emb", (image_BE * task.model.logit_scale.detach().exp()).numpy()
    ranking_BB = (text_BE @ image_BE.T).argsort(dim=1, descending=True)
    is_pair_BB = ranking_BB == torch.arange(len(text_BE))[:, None]
    yield "retrieval.t2i_acc", np.array([100 * float(is_pair_BB[:, :k].any(1).float().mean()) for k in (1, 5)])


def _padded_width(batch: Batch, task: GillTask, visual: bool) -> int:
    """Columns the originals give a pass: every caption padded alike, the second start dropped where they are joined."""
    config, vocabulary = task.model.config, task.model.vocabulary
    width = batch.text_ids.shape[1] + len(vocabulary.prefix) + (config.num_visual_tokens if visual else 0)
    if not batch.is_paired or not (visual or config.joins_text):
        return width
    return 2 * width - int(config.drops_second_bos)


def _labels(rows: TokenRows, width: int) -> np.ndarray:
    return rows.padded(rows.labels, width, IGNORED_LABEL).numpy()


def _gradients(parity: ParityFolder, case: str) -> Quantities:
    gradients = parity.released_gradients()
    if f"{case}.gradnorm.names" in parity.golden:
        names = [str(name) for name in parity.golden[f"{case}.gradnorm.names"]]
        norms = np.array([float(gradients[name].double().norm()) if name in gradients else np.nan for name in names])
        yield "gradnorm.names", np.array(sorted(gradients))
        yield "gradnorm.values", norms
        if f"{case}.gradnorm.total" in parity.golden:
            yield "gradnorm.total", float(np.sqrt((norms**2).sum()))
    for key in parity.golden:
        name = key.removeprefix(f"{case}.grad.")
        if name != key:
            yield f"grad.{name}", _recorded_part(gradients, name)


def _recorded_part(gradients: dict[str, Tensor], name: str) -> np.ndarray:
    if name == "img_rows":
        return gradients["model.input_embeddings.weight"].numpy()
    if name == "ret_row":
        return gradients["ret_input_embeddings.weight"][-1].numpy()
    values = gradients[name].flatten()
    return values[:: max(1, len(values) // _NUM_KEPT)][:_NUM_KEPT].numpy()
