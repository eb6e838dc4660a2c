"""Train what a table of the papers needs in Flatland, ask it, and write the table.

    python evals/reproduce.py                     # contexts, rounds, retrieval, decision, captions: `make reproduce`
    python evals/reproduce.py --table mappers     # also tokens, losses: `make reproduce TABLE=mappers`
    python evals/reproduce.py --smoke             # the same code in a few steps; its numbers mean nothing (SMOKE=1)

Every command that is carried out is printed, and every one continues where it was stopped. Frozen parts are fixed; only
what trains differs from seed to seed, by the preset `flatland`'s recipe for the main tables and by 400 steps of it for
the others. The noise of a drawing is that of its question, the same for every system. RESULTS gets one section a table;
what stands around the sections is left as it is. Pages with examples are OUT/TABLE.html.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evals.generate import main as generate
from evals.harness.plans import CLIP, TABLES, Plan, find_plan
from evals.harness.results import decision_table, section, write_section
from evals.report import main as report
from evals.score import load_groups
from gill.errors import TrainingError
from main import main as train
from scripts.command import carry_out
from scripts.make_flatland import main as make_flatland
from scripts.process_p2_annotations import main as agree_votes
from scripts.train_decision_model import main as train_decision


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        pictures: of the written world; there are a tenth as many questions of each kind.
        limit: questions asked. flags: of every training. words: of every drawing.
    """

    pictures: int
    limit: int
    num_seeds: int
    flags: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


FULL = Size(5000, 500, 3)
_ONE_STEP = ("--epochs", "1", "--steps-per-epoch", "1", "--batch-size", "2", "--val-batch-size", "2")
SMOKE = Size(600, 2, 2, (*_ONE_STEP, "--val-steps-per-epoch", "1"), ("--steps", "1"))


@dataclass(frozen=True)
class Bench:
    """Where a table is made, and how large it is."""

    out: Path
    plan: Plan
    size: Size

    @property
    def world(self) -> Path:
        """Flatland's files."""
        return self.out / "world"

    def model(self, label: str, seed: int) -> Path:
        """The run of one training; tables share what is trained alike."""
        return self.out / "models" / f"{_slug(label)}-{seed}"

    def answers(self) -> list[Path]:
        """Ask everything of everyone; the folders of the answers."""
        return [*self._trained_answers(), *self._baseline_answers()]

    def train(self) -> None:
        """Write the world and train every variant with every seed."""
        make = ["--out", str(self.world), "--size", str(self.size.pictures), "--seed", "0"]
        _do("scripts/make_flatland.py", make_flatland, make)
        for variant in self.plan.variants:
            for seed in range(self.size.num_seeds):
                folder = self.model(variant.label, seed)
                place = ["--log-base-dir", str(folder.parent), "--exp-name", folder.name, "--seed", str(seed)]
                flags = ["--preset", "flatland", "--workers", "1", *place, *variant.flags, *self.size.flags]
                _do("main.py", lambda words: train(words or []), flags)

    def decide(self) -> list[Path]:
        """Train a decision head beside each model; the reports."""
        votes = self.world / "data" / "PartiPromptsAllDecisions.tsv"
        agreed = self.out / "decisions.tsv"
        _do("scripts/process_p2_annotations.py", agree_votes, [str(votes), str(agreed)])
        reports = []
        for seed in range(self.size.num_seeds):
            model = self.model(self.plan.variants[0].label, seed) / "model"
            work = self.out / "decision" / str(seed)
            words = [str(agreed), str(model), "--work", str(work), "--seed", str(seed)]
            _do("scripts/train_decision_model.py", train_decision, words)
            reports.append(work / "report.json")
        return reports

    def _trained_answers(self) -> Iterator[Path]:
        for variant in self.plan.variants:
            for seed in range(self.size.num_seeds):
                tasks = {**self.plan.tasks, **(self.plan.first_seed_tasks if seed == 0 else {})}
                model = str(self.model(variant.label, seed) / "model")
                for task, contexts in tasks.items():
                    for context in contexts:
                        yield self._ask(task, context, "gill", variant.label, model, seed)

    def _baseline_answers(self) -> Iterator[Path]:
        for system, label, model, tasks in self.plan.baselines:
            for task in tasks:
                for context in self.plan.tasks[task]:
                    yield self._ask(task, context, system, label, model, 0)

    def _ask(self, task: str, context: str, system: str, label: str, model: str, seed: int) -> Path:
        data = {"vist": "sis", "visdial": "VisualDialog"}.get(task.split("-")[0], ".")
        folder = self.out / "answers" / f"{task}.{context}.{_slug(label)}-{seed}"
        words = [task, str(folder), "--data", str(self.world / data), "--context", context, "--system", system]
        words += ["--label", label, "--model", model, "--limit", str(self.size.limit), "--seed", "0"]
        _do("evals/generate.py", generate, [*words, *self.size.words])
        return folder


def main(words: list[str] | None = None) -> int:
    """Make a table; returns the exit status."""
    options = _parse(words)
    return carry_out("reproduce", lambda: _reproduce(options))


def _reproduce(options: argparse.Namespace) -> str:
    plan, size = find_plan(options.table), SMOKE if options.smoke else FULL
    bench = Bench(options.out, plan, size)
    bench.train()
    folders = bench.answers()
    groups = load_groups(folders, CLIP)
    results = options.results or (bench.out / "RESULTS.md" if options.smoke else Path("docs/RESULTS.md"))
    decisions = [json.loads(path.read_text(encoding="utf-8")) for path in bench.decide()] if plan.has_decision else []
    runs = {v.label: [bench.model(v.label, seed) for seed in range(size.num_seeds)] for v in plan.variants}
    lines = section(options.table, plan, groups, runs, results.parent / "img")
    write_section(results, options.table, [*lines, *decision_table(decisions)])
    page = bench.out / f"{options.table}.html"
    _do("evals/report.py", report, [*map(str, folders), "--clip", CLIP, "--out", str(page)])
    return f"{results}: the section {options.table}; {page} shows examples"


def _do(program: str, work: Callable[[list[str] | None], int], words: Sequence[str]) -> None:
    """Carry out one command line.

    Raises:
        TrainingError: it failed; it has said why.
    """
    print(f"$ python {program} {shlex.join(words)}", flush=True)
    if work(list(words)):
        raise TrainingError(f"{program} failed; what it says stands above, and the same command goes on from there")


def _slug(label: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in label.lower())


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=TABLES, default=TABLES[0])
    is_smoke = os.environ.get("SMOKE") == "1"
    parser.add_argument("--smoke", action="store_true", default=is_smoke, help="fewest steps (also SMOKE=1)")
    parser.add_argument("--out", type=Path, help="default: runs/reproduce, or runs/reproduce_smoke")
    parser.add_argument("--results", type=Path, help="default: docs/RESULTS.md; smoke: OUT/RESULTS.md")
    options = parser.parse_args(words)
    options.out = options.out or Path("runs", "reproduce_smoke" if options.smoke else "reproduce")
    return options


if __name__ == "__main__":
    sys.exit(main())
