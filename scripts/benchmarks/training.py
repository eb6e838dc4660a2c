"""One whole training step of ours beside the original's: CPU seconds, counted work, memory kept for backward.

Both train on the same batch and weights in the same process, with the same threads, attention and optimiser; their
losses must agree before anything is timed. The original pads paired captions to the same number of positions, so one
plain step serves as the measure of single and of paired captions.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from transformers import CLIPVisionConfig

from gill.config import Recipe
from gill.data import Share
from gill.models.gill import GillTask
from gill.training import build_optimizer, count_flops, forward_backward, update
from gill.types import Batch
from scripts.benchmarks.measure import (
    BenchmarkError,
    Product,
    cpu_seconds,
    matmul_rate,
    print_bars,
    saved_bytes,
)
from scripts.benchmarks.plain_step import PlainGill, build_plain_optimizer, plain_step
from scripts.benchmarks.setting import FULL, TINY, Setting, Sizes, build_setting

PLAIN, STORED, PAIRED, TOWER = "plain", "ours_stored", "ours_stored_paired", "ours_tower"
MIN_PLAIN_SHARE = 0.75  # of the matmul rate; a baseline that idles would flatter us
PASSES_OVER_STORE = 1.3  # the paper's 20,000 steps of 200 pairs are 1.3 passes over CC3M's 3.1 M
BARS = {
    "train_cpu_ratio_stored": 6.0,
    "train_cpu_ratio_stored_paired": 5.5,
    "train_cpu_ratio_tower": 2.6,
    "train_activation_ratio": 4.0,
}
_LOSS_TOLERANCE = 1e-4  # relative, float32
_STEP = 1999  # 0-based; the learning rate is at its peak


@dataclass(frozen=True)
class TrainingBench:
    """What is compared: each step by name, and what the counts need."""

    setting: Setting
    plain: PlainGill
    steps: Mapping[str, Callable[[], None]]


def training_bench(is_tiny: bool = False) -> dict[str, float]:
    """Ratios, counts and shares of the matmul rate; see `scripts/benchmark.py`.

    Args:
        is_tiny: toy shapes, whose times mean nothing; the share of the matmul rate is then not required.

    Raises:
        BenchmarkError: the two steps disagree, or the plain one is slow for its work.
    """
    bench = prepare(TINY if is_tiny else FULL)
    counts = count_work(bench)
    seconds, rate = _timed_rounds(bench)
    results = {**_time_ratios(seconds), **counts, **_shares(counts, seconds, rate)}
    _print_table(seconds, results)
    if is_tiny:
        return results
    print_bars(results, BARS)
    if results["plain_share_of_peak"] < MIN_PLAIN_SHARE:
        raise BenchmarkError(
            f"the plain step ran at {results['plain_share_of_peak']:.0%} of the matmul rate, {MIN_PLAIN_SHARE:.0%} is "
            "wanted for a fair comparison; run again on a quiet machine, or find what slows it down"
        )
    return results


def prepare(sizes: Sizes) -> TrainingBench:
    """Both steps on the same weights and batch.

    Raises:
        BenchmarkError: their losses differ.
    """
    setting, recipe = build_setting(sizes), Recipe()
    task = setting.task
    plain = PlainGill(task.model, setting.pixels, sizes.max_tokens)
    _say(f"{sum(p.numel() for p in task.parameters()):,} parameters; comparing the losses")
    _require_same_loss(setting, plain)
    plain_optimizer, ours = build_plain_optimizer(plain, recipe), our_step(task, recipe)
    steps: dict[str, Callable[[], None]] = {
        PLAIN: lambda: plain_step(plain, plain_optimizer, recipe),
        STORED: lambda: ours(setting.stored),
        PAIRED: lambda: ours(setting.paired),
        TOWER: lambda: ours(setting.pixels),
    }
    return TrainingBench(setting, plain, steps)


def our_step(task: GillTask, recipe: Recipe) -> Callable[[Batch], None]:
    """A whole optimiser step of ours on a batch, wherever the model is."""
    optimizer = build_optimizer(task, recipe)

    def step(batch: Batch) -> None:
        values = forward_backward(task, [batch], Share(), len(batch), task.model.device)
        update(task, optimizer, recipe, _STEP, values)

    return step


def count_work(bench: TrainingBench) -> dict[str, float]:
    """Counted TFLOP of every step (which warms them up), and the ratio of bytes kept for backward."""
    counts: dict[str, float] = {}
    for name, step in bench.steps.items():
        counts[f"{name}_tflop"] = count_flops(step) / 1e12
        _say(f"counted {name}: {counts[f'{name}_tflop']:.3f} TFLOP")
    task, stored = bench.setting.task, bench.setting.stored
    kept_plain = saved_bytes(bench.plain, bench.plain)
    kept_ours = saved_bytes(lambda: task(stored).total, task)
    _say(f"kept for backward: plain {kept_plain / 2**20:,.0f} MiB, ours {kept_ours / 2**20:,.0f} MiB")
    return {**counts, "train_activation_ratio": kept_plain / kept_ours}


def plain_products(setting: Setting) -> list[Product]:
    """The linear layers of the plain step; gradients of activations cost what the forward pass costs."""
    sizes, model = setting.sizes, setting.task.model
    language, vision = model.language.model.config, CLIPVisionConfig(**sizes.vision)
    batch, num_patches = len(setting.pixels), (vision.image_size // vision.patch_size) ** 2
    tower = (batch * (num_patches + 1), vision.hidden_size, vision.intermediate_size)
    reading = (batch * sizes.max_tokens, language.hidden_size, language.ffn_dim)
    head = (batch * sizes.max_tokens, language.hidden_size, sizes.num_words + model.config.num_img_tokens)
    return [
        *_layer_products(3 * vision.num_hidden_layers, *tower),
        *_layer_products(3 * 2 * language.num_hidden_layers, *reading),
        Product(3 * 3, *head),  # to logits, and back to states and to the table
    ]


def _layer_products(count: int, tokens: int, width: int, inner: int) -> list[Product]:
    return [
        Product(4 * count, tokens, width, width),
        Product(count, tokens, width, inner),
        Product(count, tokens, inner, width),
    ]


def _require_same_loss(setting: Setting, plain: PlainGill) -> None:
    with torch.no_grad():
        wanted = float(plain())
        found = [float(setting.task(batch).total) for batch in (setting.stored, setting.pixels)]
    if any(abs(loss - wanted) > _LOSS_TOLERANCE * abs(wanted) for loss in found):
        raise BenchmarkError(f"the plain loss is {wanted:.6f}, ours are {found}: this would compare different things")


def _timed_rounds(bench: TrainingBench) -> tuple[dict[str, float], float]:
    """Median CPU seconds of every step, and the median matmul rate; all of them once in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in bench.steps}
    rates, products, num_rounds = [], plain_products(bench.setting), bench.setting.sizes.num_rounds
    for number in range(num_rounds):
        rates.append(matmul_rate(products))
        for name, step in bench.steps.items():
            seconds[name].append(cpu_seconds(step))
        times = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
        _say(f"round {number + 1} of {num_rounds}: {rates[-1] / 1e9:.0f} GFLOP/s; {times}")
    return {name: statistics.median(values) for name, values in seconds.items()}, statistics.median(rates)


def _time_ratios(seconds: Mapping[str, float]) -> dict[str, float]:
    tower_alone = seconds[TOWER] - seconds[STORED]
    return {
        "train_cpu_ratio_stored": seconds[PLAIN] / seconds[STORED],
        "train_cpu_ratio_stored_paired": seconds[PLAIN] / seconds[PAIRED],
        "train_cpu_ratio_tower": seconds[PLAIN] / seconds[TOWER],
        "train_cpu_ratio_paper": seconds[PLAIN] / (seconds[STORED] + tower_alone / PASSES_OVER_STORE),
    }


def _shares(counts: Mapping[str, float], seconds: Mapping[str, float], rate: float) -> dict[str, float]:
    def share(name: str) -> float:
        return counts[f"{name}_tflop"] * 1e12 / seconds[name] / rate

    return {
        "matmul_gflops": rate / 1e9,
        "plain_share_of_peak": share(PLAIN),
        "ours_share_of_peak": share(STORED),
    }


def _print_table(seconds: Mapping[str, float], results: Mapping[str, float]) -> None:
    print(f"\n{'training step':20}{'TFLOP':>8}{'CPU s':>9}{'GFLOP/s':>9}{'ratio':>7}")
    for name, median in seconds.items():
        tflop = results[f"{name}_tflop"]
        print(f"{name:20}{tflop:8.3f}{median:9.2f}{1000 * tflop / median:9.0f}{seconds[PLAIN] / median:7.2f}")
    print(f"{'matmul alone':20}{'':8}{'':9}{results['matmul_gflops']:9.0f}")


def _say(message: str) -> None:
    print(f"training: {message}", file=sys.stderr, flush=True)
