"""Frozen linear maps on a CPU: whatever the layout and the side a product is taken from, the numbers are torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gill.backbones import tiny_language_model
from gill.backbones.linear import FewRowsLinear, lay_out_by_columns, linear, replace_linears


@pytest.mark.parametrize("shape", [(1, 5), (5, 5), (7, 5), (2, 9, 5), (4, 16, 5)])  # 1, 5, 7, 18 and 64 rows
@pytest.mark.parametrize("width", [3, 512, 1000])  # no block, blocks alone, blocks and some rows that are left over
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("by_columns", [True, False])
@pytest.mark.parametrize("wants_gradient", [True, False])
def test_outputs_are_those_of_torch(
    shape: tuple[int, ...], width: int, has_bias: bool, by_columns: bool, wants_gradient: bool
) -> None:
    torch.manual_seed(0)
    inputs, layer = torch.randn(shape), nn.Linear(5, width, bias=has_bias)
    wanted = torch.einsum("...d,od->...o", inputs.double(), layer.weight.double())
    wanted = wanted + layer.bias.double() if has_bias else wanted
    replace_linears(layer)
    if by_columns:
        lay_out_by_columns(layer)
    assert isinstance(layer, FewRowsLinear)
    with torch.set_grad_enabled(wants_gradient):
        outputs = layer(inputs)
    assert outputs.shape == (*shape[:-1], width) and outputs.is_contiguous()  # fused attention takes no other
    assert outputs.requires_grad == wants_gradient
    assert torch.allclose(outputs.double(), wanted, rtol=1e-5, atol=1e-6)


def test_a_head_with_fewer_words_in_use_is_multiplied_from_its_first_rows() -> None:
    torch.manual_seed(0)
    head, states = nn.Linear(8, 600, bias=False), torch.randn(1, 8)
    lay_out_by_columns(head)
    with torch.no_grad():
        logits = linear(states, head.weight[:583])
    assert torch.allclose(logits, torch.stack([head.weight[word] @ states[0] for word in range(583)])[None], atol=1e-6)


def test_no_rows_give_no_rows() -> None:
    with torch.no_grad():
        assert linear(torch.zeros(0, 3, 8), torch.zeros(4, 8)).shape == (0, 3, 4)


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
