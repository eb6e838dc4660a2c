"""Where tensors lie: a training and replies on a pretended GPU, with the numbers of the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

import gill
from gill.doctor import STORED_LOSSES, train_two_steps
from gill.flatland import draw, scenes
from gill.models.gill import GillGenerator
from gill.types import GenerationOptions, ImageOutput, Segment
from tests.pretended_gpu import GPU, OnGpu, pretended_gpu

MODEL = "checkpoints/gill_flatland"


def test_a_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    with pretended_gpu() as device:
        layer = torch.nn.Linear(3, 2).to(device)
        there = torch.ones(4, 3, device=device)
        assert isinstance(layer.weight, OnGpu) and layer.weight.device == there.device == GPU
        layer(there)[[1, 2]].sum().backward()
        assert layer.weight.grad.cpu().tolist() == [[2.0] * 3] * 2
        for wrong in (
            lambda: layer(torch.ones(4, 3)),
            lambda: there + torch.ones(3),
            lambda: torch.ones(4, 3)[there > 0],
        ):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_a_training_on_a_gpu_is_that_of_the_host() -> None:
    with pretended_gpu() as device:
        losses, is_moved = train_two_steps(device)
    assert losses == pytest.approx(STORED_LOSSES, rel=1e-12) and not is_moved


def answers(generator: GillGenerator) -> list[Sequence[object]]:
    """Of pictures and texts: words, a fetched and a drawn picture with their scores, and likelihoods."""
    picture = Segment(image=draw(next(scenes("test", 1))))
    caption = Segment(text="a big red star at the top left of the sea.")
    options = GenerationOptions(num_words=3, force_image=True, num_inference_steps=2, temperature=0.7)
    replies = generator.generate_batch([[caption], [picture, caption]], options, [3, 4])
    outputs = [part for reply in replies for part in reply if isinstance(part, ImageOutput)]
    told = generator.generate([picture], GenerationOptions(num_words=12, max_num_images=0), 0)
    ranked = generator.continuation_log_likelihoods(
        [[picture, Segment(text="Q: what is it?\nA:")]], [[" a star", " no"]]
    )
    alone = generator.log_likelihoods([[picture, caption]])
    return [
        told,
        [part for reply in replies for part in reply if isinstance(part, str)],
        [each.source for output in outputs for each in output.retrieved],
        [each.score for output in outputs for each in (*output.retrieved, *output.generated)],
        [np.asarray(each.image, dtype=float).mean() for output in outputs for each in output.generated],
        [float(each.sum()) for each in (*ranked[0], *alone)],
    ]


def test_replies_on_a_gpu_are_those_of_the_host() -> None:
    wanted = answers(gill.load_gill(MODEL, device="cpu").generator)
    with pretended_gpu() as device:
        found = answers(gill.load_gill(MODEL, device=device).generator)
    assert found[:3] == wanted[:3]
    for numbers, host in zip(found[3:], wanted[3:], strict=True):
        assert numbers == pytest.approx(host, abs=1e-2)
