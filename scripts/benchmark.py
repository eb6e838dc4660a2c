"""Measure what the project promises about speed.

    make bench                                   # everything, minutes
    python scripts/benchmark.py --parts training # one part
    python scripts/benchmark.py --tiny           # toy shapes in seconds: does it run? (also SMOKE=1)

Progress goes to standard error, tables to standard output, whose last line is one JSON object with every number.

training: one step of GILL at the shapes of OPT-125m and CLIP ViT-B/16, beside a plain restatement of the original's
step on the same batch and weights (float32, 16 captions). CPU seconds of all threads, medians of alternating steps.
    train_cpu_ratio_stored           the plain step / ours on stored image features
    train_cpu_ratio_stored_paired    the same with captions joined in pairs
    train_cpu_ratio_tower            ours runs the vision tower itself
    train_cpu_ratio_paper            the store is built once and read 1.3 times, as in the paper's training
    train_activation_ratio           bytes kept for the backward pass, parameters left out
    *_tflop                          counted work of each step
    matmul_gflops, *_share_of_peak   speed of the plain step's products alone, and how near each step comes to it
The run fails if the plain step stays below 75 % of that speed: a slow baseline proves nothing.

decoding: 32 tokens with and without our cache, and 16 prompts together; see scripts/benchmarks/decoding.py.
retrieval: exact search among a million pictures on disk; see scripts/benchmarks/retrieval.py.
ranking: a hundred answers on one reading of their dialogue; see scripts/benchmarks/ranking.py.
illustrating: last pictures of Flatland's stories, batched; see scripts/benchmarks/illustrating.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from gill.errors import GillError
from scripts.benchmarks.decoding import decoding_bench
from scripts.benchmarks.illustrating import illustrating_bench
from scripts.benchmarks.measure import keep_freed_memory
from scripts.benchmarks.ranking import ranking_bench
from scripts.benchmarks.retrieval import retrieval_bench
from scripts.benchmarks.training import training_bench

# Each part is told whether to be tiny and answers numbers by name.
PARTS: dict[str, Callable[[bool], dict[str, float]]] = {
    "training": training_bench,
    "decoding": decoding_bench,
    "retrieval": retrieval_bench,
    "ranking": ranking_bench,
    "illustrating": illustrating_bench,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the asked parts; returns the exit status."""
    options = _parse(arguments)
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    results: dict[str, float] = {}
    try:
        for name in options.parts:
            results.update(PARTS[name](options.tiny))
    except GillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({name: float(f"{value:.6g}") for name, value in results.items()}))
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    is_smoke = os.environ.get("SMOKE") == "1"
    parser.add_argument("--tiny", action="store_true", default=is_smoke, help="toy shapes; times mean nothing")
    parser.add_argument("--threads", type=int, default=0, help="of torch; default: its own choice")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
