"""Measure the training step on a GPU: images a second, MFU, peak memory, beside a plain restatement of the original's.

    python scripts/measure_step.py                                 # shapes of OPT-125m, 1.3b and 6.7b, random weights
    python scripts/measure_step.py --models opt-6.7b --batch-size 128
    python scripts/measure_step.py --dry-run                       # the same code in toy shapes on the CPU: no figures

Around each language model: CLIP ViT-L/14 and the paper's mapper, frozen parts in bfloat16. Steps: the original's, and
ours on stored image features, with captions joined in pairs, and with the vision tower in the step. Seconds are medians
of whole optimiser steps; MFU is a step's counted work by its seconds by the device's own measured rate of bfloat16
products. Writes step.md and step.json into --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import torch
from tqdm import tqdm

from scripts.benchmarks.gpu_step import Measured, Meter, best_matmul_rate, measure_model
from scripts.benchmarks.measure import BenchmarkError
from scripts.benchmarks.setting import TINY, Sizes
from scripts.benchmarks.training import PLAIN
from scripts.command import carry_out
from scripts.plan_scale import LANGUAGES, shapes

MODELS = ("opt-125m", "opt-1.3b", "opt-6.7b")
MATMUL_SIDES, TOY_MATMUL_SIDES = (4096, 8192, 16384), (64,)
DRY_RUN = "DRY RUN in toy shapes on the CPU: the figures mean nothing. Not measured."


def main(words: list[str] | None = None) -> int:
    """Measure and write; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--models", nargs="+", choices=LANGUAGES, default=list(MODELS), help="default: %(default)s")
    what.add_argument("--dry-run", action="store_true", help="toy shapes on the CPU; shows that everything runs")
    parser.add_argument("--batch-size", type=int, default=64, help="captions of a step, even; default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="timed, of each kind; default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder; default: runs/step, or runs/step-dry-run")
    return carry_out("measure_step", lambda: measure(parser.parse_args(words)))


def measure(options: argparse.Namespace) -> str:
    """Every model's steps; writes and returns the table.

    Raises:
        BenchmarkError: no GPU and no dry run, a batch that cannot be joined in pairs, or steps that disagree.
    """
    if options.batch_size < 2 or options.batch_size % 2 or options.steps < 1:
        raise BenchmarkError(
            f"captions are joined in pairs: --batch-size must be even and --steps above 0; got {options.batch_size} "
            f"and {options.steps}"
        )
    device, models = _place(options)
    rate = best_matmul_rate(device, TOY_MATMUL_SIDES if options.dry_run else MATMUL_SIDES)
    meter = Meter(device, options.steps, rate)
    steps: list[Measured] = []
    for name, sizes in tqdm(models.items(), desc="models", unit="model"):
        lengths = itertools.islice(itertools.cycle(sizes.caption_lengths), options.batch_size)
        steps += measure_model(name, dataclasses.replace(sizes, caption_lengths=tuple(lengths)), meter)
    facts = {
        "is_dry_run": options.dry_run,
        "device": "CPU" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "batch_size": options.batch_size,
        "timed_steps": options.steps,
        "matmul_tflop_per_second": rate / 1e12,
    }
    out = options.out or Path("runs/step-dry-run" if options.dry_run else "runs/step")
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(facts, steps)
    (out / "step.md").write_text(table + "\n")
    report = {**facts, "steps": [dataclasses.asdict(step) for step in steps]}
    (out / "step.json").write_text(json.dumps(report, indent=1) + "\n")
    return table


def markdown(facts: Mapping[str, object], steps: Sequence[Measured]) -> str:
    """The table, with what it was measured on above it; speed is given as a multiple of the same model's plain step."""
    plain = {step.model: step.images_per_second for step in steps if step.step == PLAIN}
    lines = [
        *([f"**{DRY_RUN}**", ""] if facts["is_dry_run"] else []),
        f"{facts['device']}, torch {facts['torch']}, bfloat16, {facts['batch_size']} captions a step, medians of "
        f"{facts['timed_steps']}; products alone: {facts['matmul_tflop_per_second']:.4g} TFLOP/s",
        "",
        "| model | step | TFLOP | ms | images/s | x plain | MFU | peak GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(step, plain[step.model]) for step in steps)])


def _place(options: argparse.Namespace) -> tuple[torch.device, dict[str, Sizes]]:
    if options.dry_run:
        return torch.device("cpu"), {"toy": TINY}
    if not torch.cuda.is_available():
        raise BenchmarkError("there is no GPU here, so nothing can be measured; --dry-run tries the script on the CPU")
    return torch.device("cuda", torch.cuda.current_device()), {name: shapes(name) for name in options.models}


def _row(step: Measured, plain_rate: float | None) -> str:
    if step.tflop is None or step.seconds is None or step.images_per_second is None or step.mfu is None:
        return f"| {step.model} | {step.step} | {step.note} |" + " |" * 5
    ratio = "" if plain_rate is None else f"{step.images_per_second / plain_rate:.2f}"
    peak = "not measured" if step.peak_gib is None else f"{step.peak_gib:.1f}"
    speed = f"{step.tflop:.4g} | {1000 * step.seconds:.1f} | {step.images_per_second:,.0f} | {ratio}"
    return f"| {step.model} | {step.step} | {speed} | {step.mfu:.1%} | {peak} |"


if __name__ == "__main__":
    sys.exit(main())
