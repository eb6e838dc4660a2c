"""The decoder layer computes what torch's does, and keeps less."""

import pytest
import torch
from torch import Tensor, nn

from gill.mappers.decoder import DecoderLayer

SETTINGS = {"d_model": 12, "nhead": 3, "dim_feedforward": 20, "dropout": 0.0, "norm_first": True, "batch_first": True}


def layers() -> tuple[nn.TransformerDecoderLayer, DecoderLayer]:
    """torch's layer and ours with the same random weights, in float64."""
    torch.manual_seed(0)
    theirs, ours = nn.TransformerDecoderLayer(**SETTINGS).double(), DecoderLayer(**SETTINGS).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)  # biases and norms too, which start as zeros and ones
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def gradients(layer: nn.Module, inputs: list[Tensor], loss: Tensor) -> list[Tensor]:
    """Of the inputs, then of the parameters."""
    return list(torch.autograd.grad(loss, [*inputs, *layer.parameters()]))


@pytest.mark.parametrize("num_targets", [1, 4], ids=["one target for all", "a target each"])
def test_outputs_and_gradients_are_those_of_torch(num_targets: int) -> None:
    theirs, ours = layers()
    target = torch.randn(num_targets, 7, 12, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(4, 5, 12, dtype=torch.float64, requires_grad=True)
    wanted, found = theirs(target.expand(4, -1, -1), memory), ours(target, memory)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(wanted)
    wanted_gradients = gradients(theirs, [target, memory], (wanted * weights).sum())
    found_gradients = gradients(ours, [target, memory], (found * weights).sum())
    for expected, own in zip(wanted_gradients, found_gradients, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-10)


def test_outputs_of_layer_norms_are_not_kept() -> None:
    """Three of 7 x 12 numbers a sample: what torch keeps beyond the inputs of its norms."""
    target, memory = (torch.randn(2, length, 12, dtype=torch.float64) for length in (7, 5))
    kept: list[dict[int, int]] = []
    for layer in layers():
        sizes: dict[int, int] = {}
        alive = []

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes, alive: list[Tensor] = alive) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            layer(target, memory)
        kept.append(sizes)
    assert sum(kept[0].values()) - sum(kept[1].values()) >= 3 * 2 * 7 * 12 * 8
