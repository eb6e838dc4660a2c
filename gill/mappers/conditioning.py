"""From [IMG] hidden states to the conditioning sequence of a diffusion model.

The four forms of the paper's ablation (GILL, arXiv:2305.17216): "linear", "mlp" (three layers),
"transformer_encoder" and "gill_mapper".

Shape legend: B = samples, R = [IMG] tokens, D = hidden width, L = conditioning length, C = conditioning width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gill.errors import ConfigError
from gill.mappers.decoder import DecoderLayer

_FEED_FORWARD_FACTOR = 4  # the usual Transformer ratio, as in the original


@dataclass(frozen=True)
class MapperSizes:
    """How large a mapper is.

    Attributes:
        hidden_width: D. num_img_tokens: R. length: L. conditioning_width: C.
        width, num_layers, num_heads: of the Transformer forms (width also of the MLP).

    Raises:
        ConfigError: the width does not divide among the heads.
    """

    hidden_width: int
    num_img_tokens: int
    length: int
    conditioning_width: int
    width: int
    num_layers: int
    num_heads: int

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ConfigError(f"mapper_width={self.width} must be a multiple of mapper_heads={self.num_heads}")


class GILLMapper(nn.Module):
    """Translate [IMG] hidden states into a diffusion text-encoder sequence.

    float[B, R, D] -> float[B, L, C]. A small encoder-decoder Transformer with L learned queries (GILL,
    arXiv:2305.17216). Its input is the hidden state plus the token's own embedding. The queries are the same for every
    sample until they first look at one, and so far they are computed once for all.
    """

    def __init__(self, sizes: MapperSizes) -> None:
        super().__init__()
        self.input = nn.Linear(sizes.hidden_width, sizes.width)
        self.transformer = nn.Transformer(
            d_model=sizes.width,
            nhead=sizes.num_heads,
            custom_encoder=_encoder(sizes),
            custom_decoder=_decoder(sizes),
            batch_first=True,
        )
        self.queries = nn.Parameter(torch.randn(1, sizes.length, sizes.width))
        self.output = nn.Linear(sizes.width, sizes.conditioning_width)

    def forward(self, hidden_BRD: Tensor, rows_RD: Tensor) -> Tensor:
        """float[B, L, C] from hidden states and the rows of the tokens they stand at."""
        memory = self.transformer.encoder(self.input(hidden_BRD + rows_RD))
        return self.output(self.transformer.decoder(self.queries, memory))


class TokenwiseMapper(nn.Module):
    """Map each [IMG] hidden state to its L * C / R share of the sequence: float[B, R, D] -> float[B, L, C].

    Raises:
        ConfigError: L * C does not divide into R equal shares.
    """

    def __init__(self, body: nn.Module, body_width: int, sizes: MapperSizes) -> None:
        super().__init__()
        num_values = sizes.length * sizes.conditioning_width
        if num_values % sizes.num_img_tokens:
            fits = max(fewer for fewer in range(1, sizes.num_img_tokens) if num_values % fewer == 0)
            raise ConfigError(
                f"this mapper splits {sizes.length} x {sizes.conditioning_width} numbers evenly over the [IMG] tokens, "
                f"and {sizes.num_img_tokens} does not divide them; num_img_tokens={fits} (--num-tokens {fits}) does, "
                "and mapper=gill_mapper takes any number"
            )
        self.length = sizes.length
        self.body = body
        self.output = nn.Linear(body_width, num_values // sizes.num_img_tokens)

    def forward(self, hidden_BRD: Tensor, rows_RD: Tensor) -> Tensor:
        """float[B, L, C]; the rows are unused, the signature is every mapper's."""
        return self.output(self.body(hidden_BRD)).flatten(1).unflatten(-1, (self.length, -1))


def _linear(sizes: MapperSizes) -> nn.Module:
    return TokenwiseMapper(nn.Identity(), sizes.hidden_width, sizes)


def _mlp(sizes: MapperSizes) -> nn.Module:
    first, second = nn.Linear(sizes.hidden_width, sizes.width), nn.Linear(sizes.width, sizes.width)
    return TokenwiseMapper(nn.Sequential(first, nn.ReLU(), second, nn.ReLU()), sizes.width, sizes)


def _transformer_encoder(sizes: MapperSizes) -> nn.Module:
    body = nn.Sequential(nn.Linear(sizes.hidden_width, sizes.width), _encoder(sizes))
    for parameter in body.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)  # nn.TransformerEncoder starts every layer as a copy of the first
    return TokenwiseMapper(body, sizes.width, sizes)


MAPPERS: dict[str, Callable[[MapperSizes], nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "transformer_encoder": _transformer_encoder,
    "gill_mapper": GILLMapper,
}


def build_mapper(kind: str, sizes: MapperSizes) -> nn.Module:
    """A mapper by name, one of `MAPPERS`.

    Raises:
        ConfigError: sizes that do not divide.
    """
    return MAPPERS[kind](sizes)


def _encoder(sizes: MapperSizes) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(**_layer_settings(sizes))  # type: ignore[arg-type]
    return nn.TransformerEncoder(layer, sizes.num_layers, nn.LayerNorm(sizes.width), enable_nested_tensor=False)


def _decoder(sizes: MapperSizes) -> nn.TransformerDecoder:
    layer = DecoderLayer(**_layer_settings(sizes))
    return nn.TransformerDecoder(layer, sizes.num_layers, nn.LayerNorm(sizes.width))


def _layer_settings(sizes: MapperSizes) -> dict[str, object]:
    settings = {"d_model": sizes.width, "nhead": sizes.num_heads, "dim_feedforward": _FEED_FORWARD_FACTOR * sizes.width}
    return {**settings, "dropout": 0.0, "norm_first": True, "batch_first": True}
