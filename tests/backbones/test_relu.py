"""The ReLU of frozen networks: torch's values and gradients, a byte a unit."""

import torch
from torch import Tensor, nn

from gill.backbones import tiny_language_model
from gill.backbones.relu import MaskReLU


def test_values_and_gradients_are_those_of_torch() -> None:
    inputs = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0])
    gradients = []
    for relu in (nn.ReLU(), MaskReLU()):
        own = inputs.clone().requires_grad_()
        outputs = relu(own)
        assert outputs.tolist() == [0.0, 0.0, 0.0, inputs[3].item(), 3.0]
        (outputs * torch.arange(1.0, 6.0)).sum().backward()
        gradients.append(own.grad)
    assert gradients[0].tolist() == gradients[1].tolist() == [0.0, 0.0, 0.0, 4.0, 5.0]


def test_one_byte_a_unit_is_kept() -> None:
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        MaskReLU()(torch.randn(30, requires_grad=True))
    assert kept == [30]


def test_a_frozen_opt_has_no_other_relu() -> None:
    modules = list(tiny_language_model("opt").modules())
    assert not any(isinstance(module, nn.ReLU) for module in modules)
    assert sum(isinstance(module, MaskReLU) for module in modules) == 2  # one a layer
