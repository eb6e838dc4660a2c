"""Put the questions of a benchmark to a system and keep its answers in a folder.

    python evals/generate.py vist-generation runs/eval/vist --data sis --model checkpoints/gill_opt
    python evals/generate.py vist-generation runs/eval/vist --data data/flatland/sis --model checkpoints/gill_flatland

Systems: `gill` (ours, released GILL and FROMAGe), the baselines `diffusion` (the frozen diffusion model alone) and
`clip` (a frozen CLIP), and `chance`. `evals/score.py` scores the folders, `evals/report.py` makes a page of them.

A stopped run is continued by the same command. `--shard K/N` answers every N-th batch, in as many processes as you
like and on as many machines as share the folder; under torchrun each process takes its own shard. Whoever finishes last
writes outputs.jsonl, with the bytes of one process alone. An item has a seed of its own, made of --seed and its id.

Tasks and their contexts, the main one last:
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import itertools
import json
from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from evals.harness.answers import Answerer
from evals.harness.items import Item, Reading
from evals.harness.runs import READING, Run, Shard
from evals.harness.systems import SYSTEMS, Settings, Truths, fingerprint_of, load_system
from evals.harness.tasks import PROTOCOLS, TASKS, Task, check_context, find_task
from gill.distributed import world_from_environment
from gill.errors import ConfigError
from gill.files import write_text
from scripts.command import carry_out


def main(words: list[str] | None = None) -> int:
    """Answer what is not answered yet; returns the exit status."""
    options = _parse(words)
    return carry_out("generate", lambda: generate(options))


def generate(options: argparse.Namespace) -> str:
    """Carry out parsed options and say what came of it.

    Raises:
        ConfigError, UnknownNameError: options that cannot work. CheckpointError: no such model.
        MissingFileError, DataError: no such data, or of another form.
    """
    task = find_task(options.task)
    context = check_context(task, options.context)
    reading = task.read(options.data, options.protocol, context).first(options.limit)
    if not reading.items:
        raise ConfigError(f"{options.data} holds nothing to ask: {dict(reading.left_out)}")
    is_paper = options.protocol == "paper"
    drawing = (options.diffusion_model, options.steps, options.guidance_scale)
    settings = Settings(options.system, options.model, *drawing, is_paper and task.repeats_bos_in_paper)
    run = Run(options.out, _manifest(options, task, context, settings, reading), _shard(options.shard))
    write_text(options.out / READING, json.dumps({"left_out": reading.left_out, "notes": reading.notes}) + "\n")
    num_new = _answer(run, task, reading, settings, options)
    is_whole = run.merge([item.id for item in reading.items])
    state = "all answered" if is_whole else "other shards are not finished yet"
    left_out = run.left_out()
    if left_out:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in left_out.most_common())
        state += f", but {left_out.total()} left out ({reasons}); once the data are complete, ask into another folder"
    return f"{options.out}: {num_new} of {len(reading.items)} items answered now, {state}"


def _answer(run: Run, task: Task, reading: Reading, settings: Settings, options: argparse.Namespace) -> int:
    batches = _batches(reading.items, options.batch_size)
    pending = run.pending([[item.id for item in batch] for batch in batches])
    if not pending:
        return 0
    system = load_system(settings, _truths(reading))
    is_paper = options.protocol == "paper"
    answerer = Answerer(
        system,
        task.answer,
        run.folder,
        reading.folder,
        options.seed,
        is_squashed=is_paper and task.squashes_in_paper,
        rating=task.rating_in_paper if is_paper else task.rating,
    )
    before = len(run.done)
    for number in tqdm(pending, desc=f"{task.name} {options.context or ''}".strip(), unit="batch"):
        run.add(answerer.lines(number, batches[number]))
    return len(run.done) - before


def _batches(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Items in order, questions and pictures apart; the same for every process."""
    kinds = [item.kind for item in items]
    borders = [0, *(at for at in range(1, len(items)) if kinds[at] != kinds[at - 1]), len(items)]
    parts = [list(items[one:two]) for one, two in itertools.pairwise(borders)]
    return [part[at : at + size] for part in parts for at in range(0, len(part), size)]


def _truths(reading: Reading) -> Truths:
    questions = [item for item in reading.items if item.is_question]
    pictures = [item.truth for item in questions if item.truth is not None]
    return Truths(pictures, [item.references for item in questions if item.references])


def _manifest(
    options: argparse.Namespace, task: Task, context: str, settings: Settings, reading: Reading
) -> dict[str, Any]:
    return {
        "task": task.name,
        "context": context,
        "protocol": options.protocol,
        "system": settings.system,
        "label": options.label or settings.system,
        "model": settings.model,
        "diffusion": settings.diffusion,
        "weights": fingerprint_of(settings),
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "data": str(options.data),
        "questions": reading.digest(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }


def _shard(words: str | None) -> Shard:
    if words is not None:
        return Shard.parse(words)
    world = world_from_environment()
    if world is None:
        return Shard()
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank)
    return Shard(world.rank, world.size)


def build_parser() -> argparse.ArgumentParser:
    """The command line; `evals/` programs of the originals' names fill it in."""
    about = "\n".join(f"    {task.name:20}{', '.join(task.contexts)}: {task.about}" for task in TASKS.values())
    parser = argparse.ArgumentParser(
        description=(__doc__ or "") + about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", metavar="TASK", help="one of those above")
    parser.add_argument("out", type=Path, metavar="RUN", help="folder of the answers, new or from a stopped run")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--context", help="what is shown of each question (default: the task's main one)")
    parser.add_argument("--system", choices=SYSTEMS, default="gill")
    parser.add_argument("--model", default="", help="folder of a GILL; folder or hub name of a diffusion model or CLIP")
    parser.add_argument(
        "--diffusion-model",
        default="",
        help="folder or hub name of what a GILL draws with (default: as it was trained)",
    )
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="corrected", help="paper: as published, faults included"
    )
    parser.add_argument("--label", help="what tables call the system (default: its kind)")
    parser.add_argument("--limit", type=int, help="ask the first N questions alone; galleries stay whole")
    parser.add_argument("--batch-size", type=int, default=32, help="questions answered together (default: 32)")
    parser.add_argument("--seed", type=int, default=42, help="of all items (default: 42)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: as the diffusion model says)")
    parser.add_argument("--guidance-scale", type=float, help="default: as the diffusion model says")
    parser.add_argument("--shard", metavar="K/N", help="answer every N-th batch from the K-th on (from 0)")
    return parser


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = build_parser()
    options = parser.parse_args(words)
    if options.system == "gill" and not options.model:
        parser.error("--system gill wants --model, the folder of a trained or released one")
    if options.diffusion_model and options.system != "gill":
        parser.error("--diffusion-model is what a GILL draws with; name the system's own model by --model")
    if options.batch_size < 1 or (options.limit is not None and options.limit < 1):
        parser.error("--batch-size and --limit must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
