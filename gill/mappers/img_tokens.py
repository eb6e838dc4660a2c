"""The rows of the [IMG] tokens.

Shape legend: R = [IMG] tokens, D = language model's embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gill.errors import ConfigError

_INITIAL_STD = 0.02  # as transformers initialises new OPT rows


class ImgTokenEmbedding(nn.Module):
    """R trainable rows for [IMG0] ... [IMG(R-1)], joined to a frozen vocabulary.

    Only the R rows are parameters of their own, so the optimizer, the checkpoint and the gradient all-reduce see R x D
    numbers instead of the whole vocabulary. With a tied head the same rows also produce the [IMG] logits; an untied
    head gets rows of its own.

    Args:
        num_img_tokens: R, at least 1.
        input_norm: mean Euclidean norm of the frozen input rows, kept by `rescale_`.
        output_norm: the same of an untied head; None when head and table are tied.
    """

    def __init__(self, num_img_tokens: int, width: int, input_norm: float, output_norm: float | None = None) -> None:
        super().__init__()
        if num_img_tokens < 1:
            raise ConfigError(f"num_img_tokens must be at least 1, got {num_img_tokens}")
        self.input_norm, self.output_norm = input_norm, output_norm
        self.input_rows = nn.Parameter(torch.empty(num_img_tokens, width).normal_(0, _INITIAL_STD))
        if output_norm is None:
            self.register_parameter("untied_output_rows", None)
        else:
            self.untied_output_rows = nn.Parameter(torch.empty(num_img_tokens, width).normal_(0, _INITIAL_STD))

    @property
    def output_rows(self) -> Tensor:
        """float[R, D] rows of the language model's head."""
        return self.input_rows if self.untied_output_rows is None else self.untied_output_rows

    @torch.no_grad()
    def rescale_(self) -> None:
        """Give every row the mean norm of the frozen rows it stands beside (the originals, after every update)."""
        _set_norm(self.input_rows, self.input_norm)
        if self.untied_output_rows is not None and self.output_norm is not None:
            _set_norm(self.untied_output_rows, self.output_norm)


def _set_norm(rows_RD: Tensor, norm: float) -> None:
    lengths_R1 = torch.linalg.vector_norm(rows_RD, dim=-1, keepdim=True)
    rows_RD.mul_(norm / lengths_R1.clamp(min=torch.finfo(rows_RD.dtype).tiny))
