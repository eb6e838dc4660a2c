"""The states at the ends of rows are those of the whole pass, though the last layer answers nothing before them."""

import pytest
import torch
from torch import Tensor, nn

from gill.backbones import LANGUAGE_FAMILIES
from gill.errors import ShapeError
from gill.models.gill.prompts import rows_of
from tests.models.gill.tiny_gill import tiny_model


@pytest.mark.parametrize("family", LANGUAGE_FAMILIES)
@pytest.mark.parametrize("count", [1, 3])
def test_ends_are_those_of_the_whole_pass(family: str, count: int) -> None:
    model = tiny_model(family)
    first_visual = model.vocabulary.size
    visual = torch.randn(2, model.config.num_visual_tokens, model.language.width, dtype=torch.float64)
    ids = ([7, 8, 9], [5] * 60 + [6, 4, 11], [9, first_visual, first_visual + 1, 12, model.vocabulary.num_words, 3])
    rows = rows_of(ids)  # the first one is all end where count is 3
    lengths = [len(row) for row in ids]
    with torch.no_grad():
        whole = model.hidden(rows, visual, splits=False).live_at(torch.arange(len(rows.ids))).split(lengths)
    ends = model.hidden_ends(rows, visual, count)
    torch.testing.assert_close(ends, torch.stack([states[-count:] for states in whole]), rtol=1e-10, atol=1e-10)


def test_the_last_layers_feed_forward_network_reads_ends_alone() -> None:
    model = tiny_model("opt")
    seen: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].numel() // inputs[0].shape[-1])

    for layer in (model.language.layers[0], model.language.layers[-1]):
        layer.fc1.register_forward_pre_hook(count)
    model.hidden_ends(rows_of([[5] * 40, [6] * 40]), None, 4)
    first_before, first_ends, last_ends = seen
    assert (first_before, first_ends, last_ends) == (72, 8, 8)


def test_a_row_that_is_too_long_is_refused() -> None:
    model = tiny_model("opt")
    limit = model.language.max_positions
    assert limit is not None
    with pytest.raises(ShapeError, match=f"{limit + 1} tokens"):
        model.hidden_ends(rows_of([[5] * (limit + 1)]), None, 1)
