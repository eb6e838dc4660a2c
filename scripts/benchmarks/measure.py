"""Work, memory and speed of a function: counted FLOPs, bytes kept for backward, CPU seconds, the matmul rate.

CPU seconds are those of all threads of this process, so other programs on the machine disturb them little.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gill.errors import GillError

Sides = tuple[Callable[[], object], Callable[[], object]]  # plain and ours
Meter = Callable[[Callable[[], object]], float]
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
_MIN_SECONDS = 0.05  # of one timing of a product


class BenchmarkError(GillError, RuntimeError):
    """A comparison that would not be fair, or not of the same thing."""


@dataclass(frozen=True)
class Product:
    """`count` products (rows x inner) @ (inner x columns) of a step."""

    count: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """Of one of them; a multiplication and an addition are two."""
        return 2 * self.rows * self.inner * self.columns


def keep_freed_memory() -> None:
    """Let glibc reuse what is freed instead of giving it back: large tensors are then not faulted in at every step.

    Otherwise a third of the plain step's CPU seconds are the kernel's, and it compares badly for no fault of its own.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def print_bars(results: Mapping[str, float], bars: Mapping[str, float]) -> None:
    """Each promised number beside what was measured."""
    for name, bar in bars.items():
        print(f"{name:32}{results[name]:6.2f}  (>= {bar:g}: {'yes' if results[name] >= bar else 'NO'})")


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Let torch compute in one thread: in CPU seconds, threads that wait for each other would count as work."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one call, all threads added."""
    start = time.process_time()
    run()
    return time.process_time() - start


def clock_seconds(run: Callable[[], object]) -> float:
    """Seconds of one call by the clock, with as many threads as torch has."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def shortest(name: str, sides: Sides, seconds: Meter, num_rounds: int) -> tuple[float, float]:
    """Seconds of the plain side and of ours, of each the shortest: whatever else a machine does makes runs longer."""
    rounds = []
    for _ in range(num_rounds):
        rounds.append((seconds(sides[0]), seconds(sides[1])))
        print(f"{name}: {rounds[-1][0]:.2f} s against {rounds[-1][1]:.2f} s", file=sys.stderr, flush=True)
    plain, ours = zip(*rounds, strict=True)
    return min(plain), min(ours)


def saved_bytes(forward: Callable[[], Tensor], module: nn.Module) -> int:
    """Bytes that stay allocated for the backward pass of `forward()`: each storage once, parameters left out."""
    known = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()  # its graph keeps every storage alive, so no address is given out twice
    del loss
    return sum(sizes.values())


def matmul_rate(products: Sequence[Product]) -> float:
    """Floating-point operations a CPU second of `products` alone, each weighted by its share of the step."""
    seconds = [product.count * _seconds_of_product(product) for product in products]
    return sum(product.count * product.flops for product in products) / sum(seconds)


def _seconds_of_product(product: Product) -> float:
    left, right = torch.randn(product.rows, product.inner), torch.randn(product.columns, product.inner)
    out = torch.empty(product.rows, product.columns)
    torch.mm(left, right.T, out=out)
    num_runs, seconds = 0, 0.0
    while seconds < _MIN_SECONDS:
        seconds += cpu_seconds(lambda: torch.mm(left, right.T, out=out))
        num_runs += 1
    return seconds / num_runs
