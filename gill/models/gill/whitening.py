"""Image features in a basis where all their directions are equally long; `scripts/whiten_features.py` measures it.

Shape legend: F = pooled image feature width.
"""

from __future__ import annotations

from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gill.errors import ConfigError

WHITENING_NAME = "whitening"  # of the tensor in its file
_MAP = "visual_prefix.linear.weight"


def read_whitening(path: str, feature_width: int) -> Tensor:
    """float[F, F] symmetric matrix of a file.

    Raises:
        ConfigError: it cannot be read, or is of another vision tower.
    """
    try:
        whitening = load_file(path)[WHITENING_NAME]
    except (OSError, SafetensorError, KeyError) as error:
        raise ConfigError(f"whitening={path!r} cannot be read: {error}; write it with whiten_features.py") from error
    if whitening.shape != (feature_width, feature_width):
        raise ConfigError(
            f"whitening={path!r} is for features of {len(whitening)} numbers, the vision tower gives {feature_width}; "
            "write another with whiten_features.py"
        )
    return whitening


def with_plain_map(state: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Trained weights whose visual tokens are made of features as they are: the same tokens from one linear map.

    Raises:
        ConfigError: as `read_whitening`.
    """
    weight = state[_MAP]
    return {**state, _MAP: weight @ read_whitening(path, weight.shape[1]).to(weight)}
