"""A whole training step on a GPU, ours beside the plain one: seconds, images a second, MFU and peak memory.

Frozen parts are in bfloat16. Ours trains float32 masters, as the trainer does; the plain step has everything in
bfloat16, as the original's `--precision bf16` casts it. Each is built from the same seed and measured alone on the
device, so that neither's memory counts for the other; their losses on the same weights must agree.

MFU is the step's own counted work by its seconds by the best rate of square bfloat16 products on the same device.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gill.config import Recipe
from gill.training import count_flops
from scripts.benchmarks.measure import BenchmarkError
from scripts.benchmarks.plain_step import PlainGill, build_plain_optimizer, plain_step
from scripts.benchmarks.setting import Sizes, build_setting
from scripts.benchmarks.training import PAIRED, PLAIN, STORED, TOWER, our_step

DTYPE = torch.bfloat16
NO_ROOM = "out of memory"
_LOSS_TOLERANCE = 0.01  # relative; what trains is rounded to 8 bits in one step and not in the other
_NUM_MATMULS, _NUM_MATMUL_ROUNDS = 10, 5


@dataclass(frozen=True)
class Measured:
    """One kind of step of one model; None is what could not be measured.

    Attributes:
        model, step: what was measured.
        tflop: counted work of a step. seconds: median. images_per_second, mfu: see the module.
        peak_gib: most memory the device held, weights and moments included; None on a CPU.
        note: why there are no figures, or "".
    """

    model: str
    step: str
    tflop: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    mfu: float | None = None
    peak_gib: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Meter:
    """How steps are measured: where, how often, and against which rate of products (operations a second)."""

    device: torch.device
    num_steps: int
    matmul_rate: float

    def measure(self, model: str, name: str, num_images: int, step: Callable[[], object]) -> Measured:
        """Count the work of a step, which also warms it up, and time some more; out of memory becomes a note."""
        self._forget()
        try:
            num_flops = count_flops(step)
            seconds = statistics.median(self._seconds(step) for _ in range(self.num_steps))
        except torch.OutOfMemoryError:
            return Measured(model, name, note=NO_ROOM)
        mfu = num_flops / seconds / self.matmul_rate
        return Measured(model, name, num_flops / 1e12, seconds, num_images / seconds, mfu, self._peak_gib())

    def _seconds(self, step: Callable[[], object]) -> float:
        _synchronize(self.device)
        start = time.perf_counter()
        step()
        _synchronize(self.device)
        return time.perf_counter() - start

    def _forget(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def _peak_gib(self) -> float | None:
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else None


def measure_model(name: str, sizes: Sizes, meter: Meter) -> list[Measured]:
    """The plain step, then ours on stored features, joined in pairs, and on pixels.

    Raises:
        BenchmarkError: the losses of the two differ.
    """
    plain, plain_loss = _measure_plain(name, sizes, meter)
    ours, our_loss = _measure_ours(name, sizes, meter)
    if plain_loss is not None and our_loss is not None:
        _require_near(name, plain_loss, our_loss)
    return [plain, *ours]


def best_matmul_rate(device: torch.device, sides: tuple[int, ...]) -> float:
    """Operations a second of the fastest square bfloat16 product among those of `sides`."""
    return max(_matmul_rate(device, side) for side in sides)


def _measure_plain(name: str, sizes: Sizes, meter: Meter) -> tuple[Measured, float | None]:
    try:
        plain = _build_plain(sizes, meter.device)
        with torch.no_grad():
            loss = float(plain())
    except torch.OutOfMemoryError:
        return Measured(name, PLAIN, note=NO_ROOM), None
    recipe = Recipe()
    optimizer = build_plain_optimizer(plain, recipe)
    step = meter.measure(name, PLAIN, len(sizes.caption_lengths), lambda: plain_step(plain, optimizer, recipe))
    return step, loss


def _build_plain(sizes: Sizes, device: torch.device) -> PlainGill:
    """The rest of our model is let go of when this returns."""
    setting = build_setting(sizes, device=device, frozen_dtype=DTYPE)
    plain = PlainGill(setting.task.model, setting.pixels, sizes.max_tokens).to(DTYPE)
    plain.batch = plain.batch.to(device, DTYPE)
    return plain


def _measure_ours(name: str, sizes: Sizes, meter: Meter) -> tuple[list[Measured], float | None]:
    try:
        setting = build_setting(sizes, device=meter.device, frozen_dtype=DTYPE)
        with torch.no_grad():
            loss = float(setting.task(setting.stored).total)
    except torch.OutOfMemoryError:
        return [Measured(name, kind, note=NO_ROOM) for kind in (STORED, PAIRED, TOWER)], None
    step = our_step(setting.task, Recipe())
    batches = {STORED: setting.stored, PAIRED: setting.paired, TOWER: setting.pixels}
    return [
        meter.measure(name, kind, len(batch), lambda batch=batch: step(batch))  # type: ignore[misc]
        for kind, batch in batches.items()
    ], loss


def _require_near(name: str, plain_loss: float, our_loss: float) -> None:
    if abs(our_loss - plain_loss) > _LOSS_TOLERANCE * abs(plain_loss):
        raise BenchmarkError(
            f"{name}: the plain loss is {plain_loss:.4f}, ours is {our_loss:.4f}: this would compare different things"
        )


def _matmul_rate(device: torch.device, side: int) -> float:
    left, right = (torch.randn(side, side, device=device, dtype=DTYPE) for _ in range(2))
    out, seconds = left @ right, []
    for _ in range(_NUM_MATMUL_ROUNDS):
        _synchronize(device)
        start = time.perf_counter()
        for _ in range(_NUM_MATMULS):
            torch.mm(left, right, out=out)
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
    return _NUM_MATMULS * 2 * side**3 / min(seconds)


def _synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
