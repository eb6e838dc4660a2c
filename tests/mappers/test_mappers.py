"""Shapes and refusals of what trains."""

from dataclasses import replace

import pytest
import torch

from gill.errors import ConfigError
from gill.mappers import (
    MAPPERS,
    DecisionHead,
    ImgTokenEmbedding,
    MapperSizes,
    RetrievalHeads,
    VisualPrefix,
    build_mapper,
)

SIZES = MapperSizes(10, 4, 6, 8, width=12, num_layers=2, num_heads=3)


@pytest.mark.parametrize("kind", MAPPERS)
def test_every_mapper_gives_a_conditioning_sequence(kind: str) -> None:
    mapper = build_mapper(kind, SIZES)
    mapped = mapper(torch.randn(3, 4, 10), torch.randn(4, 10))
    assert mapped.shape == (3, 6, 8)
    mapped.sum().backward()
    assert all(parameter.grad is not None for parameter in mapper.parameters())


def test_the_mlp_has_three_layers() -> None:
    mapper = build_mapper("mlp", SIZES)
    assert sum(isinstance(module, torch.nn.Linear) for module in mapper.modules()) == 3


def test_layers_of_the_encoder_start_apart() -> None:
    mapper = build_mapper("transformer_encoder", SIZES)
    first, second = (layer.linear1.weight for layer in mapper.body[1].layers)
    assert not torch.equal(first, second)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"5 does not divide them.*--num-tokens"):
        build_mapper("linear", replace(SIZES, num_img_tokens=5))
    with pytest.raises(ConfigError, match="mapper_width=12 must be a multiple of mapper_heads=5"):
        replace(SIZES, num_heads=5)
    with pytest.raises(ConfigError, match="at least 1"):
        ImgTokenEmbedding(0, 4, 1.0)


def test_heads_give_unit_rows_and_tokens() -> None:
    heads, prefix = RetrievalHeads(10, 7, 5), VisualPrefix(7, 3, 10)
    assert heads.embed_text(torch.randn(2, 10)).norm(dim=1).tolist() == pytest.approx([1, 1])
    assert heads.embed_image(torch.randn(2, 7)).norm(dim=1).tolist() == pytest.approx([1, 1])
    assert prefix(torch.randn(2, 7)).shape == (2, 3, 10)
    assert DecisionHead(10)(torch.randn(2, 10)).shape == (2, 2)


def test_rescaling_survives_a_row_of_zeros() -> None:
    tokens = ImgTokenEmbedding(2, 4, 3.0, 2.0)
    with torch.no_grad():
        tokens.input_rows[0] = 0
    tokens.rescale_()
    assert tokens.input_rows.norm(dim=1).tolist() == pytest.approx([0, 3])
    assert tokens.output_rows.norm(dim=1).tolist() == pytest.approx([2, 2])
