"""From [IMG] hidden states to the conditioning sequence of a diffusion model.

The four forms of the paper's ablation (GILL, arXiv:2305.17216): "linear", "mlp" (three layers),
"transformer_encoder" and "gill_mapper".

Shape legend: B = samples, R = [IMG] tokens, D = hidden width, L = conditioning length, C = conditioning width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gill.errors import ConfigError
from gill.mappers.decoder import DecoderLayer

_FEED_FORWARD_FACTOR = 4  # the usual Transformer ratio, as in the original


class GILLMapper(nn.Module):
    """Translate [IMG] hidden states into a diffusion text-encoder sequence.

    float[B, R, D] -> float[B, L, C]. A small encoder-decoder Transformer with L learned queries (GILL,
    arXiv:2305.17216). Its input is the hidden state plus the token's own embedding. The queries are the same for every
    sample until they first look at one, and so far they are computed once for all.
    """

    def __init__(
        self,
        hidden_width: int,
        num_img_tokens: int,
        length: int,
        conditioning_width: int,
        width: int,
        num_layers: int,
        num_heads: int,
    ) -> None:
        super().__init__()
        self.input = nn.Linear(hidden_width, width)
        self.transformer = nn.Transformer(
            d_model=width,
            nhead=num_heads,
            custom_encoder=_encoder(width, num_layers, num_heads),
            custom_decoder=_decoder(width, num_layers, num_heads),
            batch_first=True,
        )
        self.queries = nn.Parameter(torch.randn(1, length, width))
        self.output = nn.Linear(width, conditioning_width)

    def forward(self, hidden_BRD: Tensor, rows_RD: Tensor) -> Tensor:
        """float[B, L, C] from hidden states and the rows of the tokens they stand at."""
        memory = self.transformer.encoder(self.input(hidden_BRD + rows_RD))
        return self.output(self.transformer.decoder(self.queries, memory))


class TokenwiseMapper(nn.Module):
    """Map each [IMG] hidden state to its L * C / R share of the sequence: float[B, R, D] -> float[B, L, C].

    Raises:
        ConfigError: L * C does not divide into R equal shares.
    """

    def __init__(
        self, body: nn.Module, body_width: int, num_img_tokens: int, length: int, conditioning_width: int
    ) -> None:
        super().__init__()
        if length * conditioning_width % num_img_tokens:
            raise ConfigError(
                f"this mapper splits {length} x {conditioning_width} numbers evenly over the [IMG] tokens, and "
                f"{num_img_tokens} does not divide them; change num_img_tokens or use mapper=gill_mapper"
            )
        self.length = length
        self.body = body
        self.output = nn.Linear(body_width, length * conditioning_width // num_img_tokens)

    def forward(self, hidden_BRD: Tensor, rows_RD: Tensor) -> Tensor:
        """float[B, L, C]; the rows are unused, the signature is every mapper's."""
        return self.output(self.body(hidden_BRD)).flatten(1).unflatten(-1, (self.length, -1))


def _linear(hidden_width: int, num_img_tokens: int, length: int, conditioning_width: int, *_: int) -> nn.Module:
    return TokenwiseMapper(nn.Identity(), hidden_width, num_img_tokens, length, conditioning_width)


def _mlp(
    hidden_width: int, num_img_tokens: int, length: int, conditioning_width: int, width: int, *_: int
) -> nn.Module:
    body = nn.Sequential(nn.Linear(hidden_width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    return TokenwiseMapper(body, width, num_img_tokens, length, conditioning_width)


def _transformer_encoder(
    hidden_width: int,
    num_img_tokens: int,
    length: int,
    conditioning_width: int,
    width: int,
    num_layers: int,
    num_heads: int,
) -> nn.Module:
    body = nn.Sequential(nn.Linear(hidden_width, width), _encoder(width, num_layers, num_heads))
    for parameter in body.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)  # nn.TransformerEncoder starts every layer as a copy of the first
    return TokenwiseMapper(body, width, num_img_tokens, length, conditioning_width)


MAPPERS: dict[str, Callable[..., nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "transformer_encoder": _transformer_encoder,
    "gill_mapper": GILLMapper,
}


def build_mapper(
    kind: str,
    hidden_width: int,
    num_img_tokens: int,
    length: int,
    conditioning_width: int,
    width: int,
    num_layers: int,
    num_heads: int,
) -> nn.Module:
    """A mapper by name.

    Args:
        kind: one of `MAPPERS`.
        hidden_width: D. num_img_tokens: R. length: L. conditioning_width: C.
        width, num_layers, num_heads: of the Transformer forms (width also of the MLP).

    Raises:
        ConfigError: sizes that do not divide.
    """
    if width % num_heads:
        raise ConfigError(f"mapper_width={width} must be a multiple of mapper_heads={num_heads}")
    return MAPPERS[kind](hidden_width, num_img_tokens, length, conditioning_width, width, num_layers, num_heads)


def _layer_settings(width: int, num_heads: int) -> dict[str, object]:
    settings = {"d_model": width, "nhead": num_heads, "dim_feedforward": _FEED_FORWARD_FACTOR * width}
    return {**settings, "dropout": 0.0, "norm_first": True, "batch_first": True}


def _encoder(width: int, num_layers: int, num_heads: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(**_layer_settings(width, num_heads))  # type: ignore[arg-type]
    return nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(width), enable_nested_tensor=False)


def _decoder(width: int, num_layers: int, num_heads: int) -> nn.TransformerDecoder:
    layer = DecoderLayer(**_layer_settings(width, num_heads))  # type: ignore[arg-type]
    return nn.TransformerDecoder(layer, num_layers, nn.LayerNorm(width))
