"""The work of a step, counted: floating-point operations of its matrix products, convolutions and attention.

A multiplication and an addition are two operations, as in the tables of vendors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import flop_counter

_SUSTAINED = (
    100e12  # operations a second of one GPU, for a first guess at hours; measure yours with scripts/benchmark.py
)


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of one call, attention included."""
    with _counter() as counter:
        run()
    return counter.get_total_flops()


def ledger_text(num_flops: float, num_steps: int, num_processes: int) -> str:
    """A step's work and what the whole run comes to, in words.

    Args:
        num_flops: of one step, over all processes.
    """
    total = num_flops * num_steps
    hours = total / _SUSTAINED / num_processes / 3600
    return (
        f"{num_flops / 1e12:.4g} TFLOP a step, {total / 1e15:.4g} PFLOP in {num_steps:,} steps: {hours:.3g} hours at "
        f"{_SUSTAINED / 1e12:.0f} TFLOP/s on each of {num_processes}"
    )


def _counter() -> flop_counter.FlopCounterMode:
    kernels = torch.ops.aten
    mapping: dict[Any, Any] = {  # torch 2.13 counts the attention kernels of accelerators only
        kernels._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        kernels._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    return flop_counter.FlopCounterMode(display=False, custom_mapping=mapping)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return flop_counter.sdpa_flop_count(query, key, value)


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return flop_counter.sdpa_backward_flop_count(grad, query, key, value)
