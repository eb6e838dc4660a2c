"""Measure Flatland's judge and frozen parts on held-out scenes, with 95 % intervals.

    python scripts/evaluate_flatland.py --n 500 --seeds 3
    python scripts/evaluate_flatland.py --n 100 --seeds 1 --only judge vae    # some of it, sooner

Prints a table; the last line is one JSON object with the means. Samples, their true pictures and the curves of the
language model are written to --figures.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from gill._torchvision import define_missing_torchvision_ops
from scripts.command import carry_out

define_missing_torchvision_ops()

from diffusers import StableDiffusionPipeline

from gill.errors import MissingCheckpointError
from gill.metrics import share_half_width
from scripts.flatland import evaluation, language_evaluation
from scripts.flatland.cards import write_cards
from scripts.flatland.evaluation import Measures, merge

PARTS = ("judge", "language", "clip", "vae", "diffusion")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    return carry_out("evaluate_flatland", lambda: _report(options))


def _report(options: argparse.Namespace) -> str:
    report = {name: interval(values) for name, values in measure(options).items()}
    if options.cards:
        only = "" if options.only == PARTS else f" --only {' '.join(options.only)}"
        command = f"python scripts/evaluate_flatland.py --n {options.n} --seeds {options.seeds}{only}"
        write_cards(options.parts, options.cards, report, command)
    lines = [f"{k:32s} {found['mean']:8.4f} +- {found['half']:.4f}   n = {found['n']}" for k, found in report.items()]
    return "\n".join([*lines, json.dumps({name: round(found["mean"], 5) for name, found in report.items()})])


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500, help="items a seed (default: 500)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of scenes, captions and noise (default: 3)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--parts", type=Path, default=Path("checkpoints/flatland"), metavar="DIR")
    parser.add_argument("--figures", type=Path, default=Path("runs/flatland_evaluation"), metavar="DIR")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cards", type=Path, metavar="WORK", help="rewrite the model cards, from the build in WORK")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    options = parser.parse_args(arguments)
    if options.n < 1 or options.seeds < 1:
        parser.error("--n and --seeds must be at least 1")
    return options


def measure(options: argparse.Namespace) -> Measures:
    """All asked measures, the items of all seeds together.

    Raises:
        MissingCheckpointError: if the frozen parts are not there.
    """
    if not (options.parts / "clip").is_dir():
        raise MissingCheckpointError(f"{options.parts} holds no Flatland parts; run scripts/build_flatland.py first")
    options.figures.mkdir(parents=True, exist_ok=True)
    by_part: dict[str, Callable[[argparse.Namespace], Measures]] = {
        "judge": lambda o: merge(evaluation.judge_measures(o.n, seed) for seed in range(o.seeds)),
        "language": _language,
        "clip": lambda o: merge(
            evaluation.clip_measures(o.parts, seed, torch.device(o.device)) for seed in range(o.seeds)
        ),
        "vae": _vae,
        "diffusion": _diffusion,
    }
    found: Measures = {}
    for part in options.only:
        found |= by_part[part](options)
    return found


def _language(options: argparse.Namespace) -> Measures:
    reader = language_evaluation.Reader(*evaluation.load_language(options.parts, torch.device(options.device)))
    curves = language_evaluation.context_curves(reader, options.n, 0)
    language_evaluation.plot_curves(curves, options.figures / "language_context.png")
    return merge(language_evaluation.language_measures(reader, options.n, seed) for seed in range(options.seeds))


def _pipeline(options: argparse.Namespace) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(options.parts / "diffusion", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(options.device)


def _vae(options: argparse.Namespace) -> Measures:
    pipeline = _pipeline(options)
    return merge(evaluation.vae_measures(pipeline, options.n, seed) for seed in range(options.seeds))


def _diffusion(options: argparse.Namespace) -> Measures:
    pipeline = _pipeline(options)
    found: list[Measures] = []
    for seed in range(options.seeds):
        for split in ("test", "novel"):
            marks, (true, drawn) = evaluation.diffusion_measures(pipeline, split, options.n, seed)
            found.append(marks)
            if seed == 0:
                evaluation.sample_grid(true, drawn).save(options.figures / f"samples_{split}.png")
    return merge(found) | {"seconds_per_64": [evaluation.seconds_per_64(pipeline)]}


def interval(values: list[float]) -> dict[str, float]:
    """Mean, half width of its 95 % interval over items as of a share, and their number."""
    mean = sum(values) / len(values)
    return {"mean": mean, "half": share_half_width(values) if len(values) > 1 else 0.0, "n": len(values)}


if __name__ == "__main__":
    sys.exit(main())
