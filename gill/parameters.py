"""Freeze, count, save and compare the parameters of a model.

What trains has `requires_grad`; everything else is frozen, stays in eval mode and never reaches an optimiser.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gill.errors import CheckpointError

_BITS_AT_ONCE = 2**24  # numbers; 128 MiB as integers
_ODD = 0x1E3779B97F4A7C15  # any large odd number spreads the bits


@dataclass(frozen=True)
class ParameterRow:
    """One line of a parameter table."""

    name: str
    shape: tuple[int, ...]
    num_values: int
    is_trainable: bool


class FrozenModule(nn.Module):
    """A module that never trains: no gradients for its weights, and `train()` leaves dropout off.

    Subclasses call `freeze(self)` once built.
    """

    def train(self, mode: bool = True) -> FrozenModule:
        """Stay in eval mode whatever the surrounding model does."""
        return super().train(False)


def freeze(module: nn.Module) -> nn.Module:
    """Turn gradients off for every parameter of `module` and put it in eval mode; returns it."""
    module.requires_grad_(False)
    return module.eval()


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name, each once."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def count_trainable(module: nn.Module) -> int:
    """Numbers that train."""
    return sum(parameter.numel() for parameter in trainable_parameters(module).values())


def parameter_table(module: nn.Module) -> list[ParameterRow]:
    """Every parameter once, in the order of the modules."""
    return [
        ParameterRow(name, tuple(parameter.shape), parameter.numel(), parameter.requires_grad)
        for name, parameter in module.named_parameters()
    ]


def trainable_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies of what trains, on the CPU, by name."""
    return {name: p.detach().to("cpu", copy=True).contiguous() for name, p in trainable_parameters(module).items()}


def load_trainable_state(module: nn.Module, state: Mapping[str, Tensor], source: str = "the checkpoint") -> None:
    """Copy `state` into what trains. Nothing is changed unless every name and shape fits.

    Raises:
        CheckpointError: names or shapes differ; the message lists them.
    """
    own = trainable_parameters(module)
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(f"{source} does not fit the model: missing {_some(missing)}, unknown {_some(unknown)}")
    wrong = [
        f"{n} is {tuple(state[n].shape)}, the model has {tuple(own[n].shape)}"
        for n in own
        if own[n].shape != state[n].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{source} has other sizes than the model: {_some(wrong)}; use the settings it was trained with"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[name])


def frozen_hashes(module: nn.Module) -> dict[str, str]:
    """SHA-256 of the bytes of every frozen parameter and buffer, by name: equal before and after training."""
    frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad}
    return {name: tensor_hash(tensor) for name, tensor in {**frozen, **dict(module.named_buffers())}.items()}


@torch.no_grad()
def frozen_checksums(module: nn.Module) -> dict[str, int]:
    """A checksum of the bits of every frozen parameter and buffer, computed where they lie.

    A pass over the memory of a GPU, where `frozen_hashes` copies everything to the host. Of a sharded tensor
    this covers this process's part.
    """
    frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad}
    return {name: _bit_checksum(tensor) for name, tensor in {**frozen, **dict(module.named_buffers())}.items()}


def _bit_checksum(tensor: Tensor) -> int:
    own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    if own.is_meta or not own.numel():
        return 0
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = own.detach().contiguous().reshape(-1).view(kinds[own.element_size()])
    total = 0
    for part in bits.split(_BITS_AT_ONCE):
        # Bits and their position, through a map that is not linear (as in RC6): no two changes cancel.
        mixed = part.long() * _ODD + torch.arange(len(part), device=part.device)
        total += int((mixed * (2 * mixed + 1)).sum())
    return total


def tensor_hash(tensor: Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _some(names: list[str], limit: int = 5) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
