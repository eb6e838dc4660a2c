"""Frozen linear maps on a CPU: whatever the layout and the side a product is taken from, the numbers are torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gill.backbones import tiny_language_model
from gill.backbones.linear import FewRowsLinear, lay_out_by_columns, replace_linears


@pytest.mark.parametrize("shape", [(1, 5), (7, 5), (2, 9, 5), (4, 16, 5)])  # 1, 7, 18 and 64 rows
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("wants_gradient", [True, False])
def test_outputs_are_those_of_torch(shape: tuple[int, ...], has_bias: bool, wants_gradient: bool) -> None:
    torch.manual_seed(0)
    inputs, linear = torch.randn(shape), nn.Linear(5, 3, bias=has_bias)
    wanted = torch.einsum("...d,od->...o", inputs.double(), linear.weight.double())
    wanted = wanted + linear.bias.double() if has_bias else wanted
    replace_linears(linear)
    assert isinstance(linear, FewRowsLinear)
    with torch.set_grad_enabled(wants_gradient):
        outputs = linear(inputs)
    assert outputs.shape == (*shape[:-1], 3) and outputs.is_contiguous()  # fused attention takes no other
    assert outputs.requires_grad == wants_gradient
    assert torch.allclose(outputs.double(), wanted, rtol=1e-5, atol=1e-6)


def test_a_subclass_keeps_its_own_product() -> None:
    class Doubling(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    model = nn.Sequential(Doubling(2, 2))
    replace_linears(model)
    assert type(model[0]) is Doubling


def test_a_tied_table_stays_tied_to_its_head() -> None:
    head, table = nn.Linear(4, 6, bias=False), nn.Embedding(6, 4)
    table.weight = head.weight
    before, inputs = head.weight.detach().clone(), torch.randn(3, 4)
    lay_out_by_columns(head)
    assert table.weight is head.weight and head.weight.stride() == (1, 6)
    assert torch.equal(head.weight, before)
    assert torch.equal(table(torch.tensor([5, 0])), before[[5, 0]])
    assert torch.allclose(head(inputs), F.linear(inputs, before))


def test_the_head_of_a_frozen_model_lies_column_by_column() -> None:
    language = tiny_language_model("opt")
    assert language.head.weight.T.is_contiguous()
    assert language.is_tied
    assert isinstance(language.layers[0].fc1, FewRowsLinear)
