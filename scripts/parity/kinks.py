"""Gradients where a ReLU stands within rounding of zero.

A ReLU's derivative jumps at zero. Of the hundred thousand units of one step, some have inputs of 1e-7, and float32
rounding alone decides on which side they fall: two right implementations, or one on two machines, then differ by more
than 1e-4 in a few gradients. So where a recorded gradient differs, units that close to zero are nudged across it, one
at a time, and a nudge that explains the difference is kept. Nothing else can be explained so: a nudge moves one input
by less than 4e-6.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_ROUNDING = 2e-6  # inputs are of order 1 and pass through dozens of float32 sums
_BEFORE_RELU = ("fc1", "linear1")  # layers of OPT and of nn.Transformer whose output a ReLU reads
_RELU = ".relu"  # of the mapper's decoder, whose linear1 is not called as a module


@dataclass(frozen=True)
class Unit:
    """One input of a ReLU: layer, how often that layer had run before in this step, place in its output, value."""

    layer: str
    call: int
    place: int
    value: float


def explain(
    model: nn.Module, errors_at: Callable[[], dict[str, float]], tolerance: float
) -> tuple[dict[str, float], list[Unit]]:
    """Nudge units until all errors are within `tolerance`; nudges that explain no quantity are dropped.

    Args:
        model: whose step `errors_at` runs.
        errors_at: run one step forward and backward, return the error of each gradient quantity.

    Returns:
        (errors, units nudged).
    """
    near: list[Unit] = []
    with _watching(model, near):
        plain = best = errors_at()
    nudged: list[Unit] = []
    for unit in sorted(near, key=lambda unit: abs(unit.value)):
        if max(best.values(), default=0.0) <= tolerance:
            break
        with _nudging(model, [*nudged, unit]):
            errors = errors_at()
        if _badness(errors, tolerance) < _badness(best, tolerance):
            best, nudged = errors, [*nudged, unit]
    explained = _num_outside(best, tolerance) < _num_outside(plain, tolerance)
    return (best, nudged) if explained else (plain, [])


def _num_outside(errors: dict[str, float], tolerance: float) -> int:
    return sum(not error <= tolerance for error in errors.values())


def _badness(errors: dict[str, float], tolerance: float) -> float:
    return sum(error for error in errors.values() if not error <= tolerance)


@contextlib.contextmanager
def _watching(model: nn.Module, near: list[Unit]) -> Iterator[None]:
    def watch(name: str, call: int, output: Tensor) -> None:
        if output.requires_grad:
            values = output.detach().flatten()
            near.extend(Unit(name, call, int(i), float(values[i])) for i in (values.abs() < _ROUNDING).nonzero()[:, 0])

    with _hooks(model, watch):
        yield


@contextlib.contextmanager
def _nudging(model: nn.Module, units: list[Unit]) -> Iterator[None]:
    def nudge(name: str, call: int, output: Tensor) -> Tensor | None:
        chosen = [unit for unit in units if (unit.layer, unit.call) == (name, call)]
        if not chosen:
            return None
        shift = torch.zeros_like(output)
        for unit in chosen:
            shift.view(-1)[unit.place] = -2 * unit.value if unit.value else -_ROUNDING
        return output + shift

    with _hooks(model, nudge):
        yield


@contextlib.contextmanager
def _hooks(model: nn.Module, act: Callable[[str, int, Tensor], Tensor | None]) -> Iterator[None]:
    calls: dict[str, int] = {}

    def hook(name: str) -> Callable[..., Tensor | None]:
        def run(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
            calls[name] = calls.get(name, -1) + 1
            return act(name, calls[name], output)

        return run

    def pre_hook(name: str) -> Callable[..., Tensor | None]:
        run = hook(name)
        return lambda module, inputs: run(module, (), inputs[0])

    handles = []
    for name, layer in model.named_modules():
        if name.endswith(_BEFORE_RELU):
            handles.append(layer.register_forward_hook(hook(name)))
        elif name.endswith(_RELU):
            handles.append(layer.register_forward_pre_hook(pre_hook(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
