"""Train what a table of the papers needs in Flatland, ask it, and write the table.

    python evals/reproduce.py                     # contexts, rounds, retrieval, decision, captions: `make reproduce`
    python evals/reproduce.py --table mappers     # also tokens, losses: `make reproduce TABLE=mappers`
    python evals/reproduce.py --smoke             # the same code in a few steps; its numbers mean nothing (SMOKE=1)

Every command that is carried out is printed, and every one continues where it was stopped. Several run at once, each
with its share of the cores, waiting only for what it needs, and print into OUT/logs (`--jobs`). Frozen parts are fixed;
only what trains differs from seed to seed, by the preset `flatland`'s recipe for the main tables and by 400 steps of it
for the others. The noise of a drawing is that of its question, the same for every system. RESULTS gets one section a
table; what stands around the sections is left as it is. Pages with examples are OUT/TABLE.html.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from evals.generate import main as generate
from evals.harness.jobs import Command, Programs, carry_out_apart, carry_out_here, default_jobs
from evals.harness.plans import CLIP, TABLES, Plan, Variant, find_plan
from evals.harness.results import decision_table, section, write_section
from evals.report import main as report
from evals.score import load_groups
from main import main as train
from scripts.command import carry_out
from scripts.make_flatland import main as make_flatland
from scripts.process_p2_annotations import main as agree_votes
from scripts.train_decision_model import main as train_decision

# By path, as the commands that are printed name them.
PROGRAMS: Programs = {
    "main.py": lambda words: train(words),
    "scripts/make_flatland.py": lambda words: make_flatland(words),
    "scripts/process_p2_annotations.py": lambda words: agree_votes(words),
    "scripts/train_decision_model.py": lambda words: train_decision(words),
    "evals/generate.py": lambda words: generate(words),
    "evals/report.py": lambda words: report(words),
}
_WORLD, _DECISIONS = "world", "decisions"  # commands that others need


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
    """Where a table is made, how large it is, and how many commands are carried out at once."""

    out: Path
    plan: Plan
    size: Size
    jobs: int = 1

    @property
    def world(self) -> Path:
        """Flatland's files."""
        return self.out / "world"

    def model(self, variant: Variant, seed: int) -> Path:
        """The run of one training; tables share what is trained alike."""
        return self.out / "models" / f"{_slug(variant.training or variant.label)}-{seed}"

    def carry_out(self) -> None:
        """Write the world, train every variant with every seed, ask everything of everyone."""
        commands = list(self._commands())
        if self.jobs == 1:
            carry_out_here(commands, PROGRAMS)
        else:
            carry_out_apart(commands, self.jobs, self.out / "logs")

    def answers(self) -> list[Path]:
        """The folders of the answers."""
        asked = [*self._trained_answers(), *self._baseline_answers()]
        return [self.out / "answers" / command.name for command in asked]

    def decisions(self) -> list[Path]:
        """The reports of the decision heads, one a seed."""
        return [self._decision(seed) / "report.json" for seed in self._seeds] if self.plan.has_decision else []

    def page(self, name: str, folders: list[Path]) -> Path:
        """Examples of every answer."""
        page = self.out / f"{name}.html"
        words = (*map(str, folders), "--clip", CLIP, "--out", str(page))
        carry_out_here([Command("evals/report.py", words, "report")], PROGRAMS)
        return page

    @property
    def _seeds(self) -> range:
        return range(self.size.num_seeds)

    def _commands(self) -> Iterator[Command]:
        """What others need comes first: then no core waits for the last training."""
        make = ("--out", str(self.world), "--size", str(self.size.pictures), "--seed", "0")
        yield Command("scripts/make_flatland.py", make, _WORLD)
        for variant in self.plan.variants:
            yield from (self._training(variant, seed) for seed in self._seeds)
        yield from self._baseline_answers()
        yield from self._trained_answers()
        if self.plan.has_decision:
            votes, agreed = self.world / "data" / "PartiPromptsAllDecisions.tsv", self.out / "decisions.tsv"
            yield Command("scripts/process_p2_annotations.py", (str(votes), str(agreed)), _DECISIONS, (_WORLD,))
            yield from (self._deciding(agreed, seed) for seed in self._seeds)

    def _training(self, variant: Variant, seed: int) -> Command:
        folder = self.model(variant, seed)
        place = ("--log-base-dir", str(folder.parent), "--exp-name", folder.name, "--seed", str(seed))
        flags = ("--preset", "flatland", "--workers", "1", *place, *variant.flags, *self.size.flags)
        return Command("main.py", flags, folder.name)

    def _decision(self, seed: int) -> Path:
        return self.out / "decision" / str(seed)

    def _deciding(self, agreed: Path, seed: int) -> Command:
        run = self.model(self.plan.variants[0], seed)
        words = (str(agreed), str(run / "model"), "--work", str(self._decision(seed)), "--seed", str(seed))
        return Command("scripts/train_decision_model.py", words, f"decision-{seed}", (_DECISIONS, run.name))

    def _trained_answers(self) -> Iterator[Command]:
        for variant in self.plan.variants:
            for seed in self._seeds:
                tasks = {**self.plan.tasks, **(self.plan.first_seed_tasks if seed == 0 else {})}
                run = self.model(variant, seed)
                for task, contexts in tasks.items():
                    for context in contexts:
                        asking = self._asking(task, context, "gill", variant.label, str(run / "model"), seed)
                        yield replace(asking, after=(_WORLD, run.name))

    def _baseline_answers(self) -> Iterator[Command]:
        for system, label, model, tasks in self.plan.baselines:
            for task in tasks:
                for context in self.plan.tasks[task]:
                    yield self._asking(task, context, system, label, model, 0)

    def _asking(self, task: str, context: str, system: str, label: str, model: str, seed: int) -> Command:
        data = {"vist": "sis", "visdial": "VisualDialog"}.get(task.split("-")[0], ".")
        name = f"{task}.{context}.{_slug(label)}-{seed}"
        place = (task, str(self.out / "answers" / name), "--data", str(self.world / data), "--context", context)
        asked = ("--system", system, "--label", label, "--model", model, "--limit", str(self.size.limit), "--seed", "0")
        return Command("evals/generate.py", (*place, *asked, *self.size.words), name, (_WORLD,))


def main(words: list[str] | None = None) -> int:
    """Make a table; returns the exit status."""
    options = _parse(words)
    return carry_out("reproduce", lambda: _reproduce(options))


def _reproduce(options: argparse.Namespace) -> str:
    plan, size = find_plan(options.table), SMOKE if options.smoke else FULL
    bench = Bench(options.out, plan, size, options.jobs)
    bench.carry_out()
    folders = bench.answers()
    groups = load_groups(folders, CLIP)
    results = options.results or (bench.out / "RESULTS.md" if options.smoke else Path("docs/RESULTS.md"))
    decisions = [json.loads(path.read_text(encoding="utf-8")) for path in bench.decisions()]
    runs = {v.label: [bench.model(v, seed) for seed in range(size.num_seeds)] for v in plan.variants}
    lines = section(options.table, plan, groups, runs, results.parent / "img")
    write_section(results, options.table, [*lines, *decision_table(decisions)])
    page = bench.page(options.table, folders)
    return f"{results}: the section {options.table}; {page} shows examples"


def _slug(label: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in label.lower())


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=TABLES, default=TABLES[0])
    is_smoke = os.environ.get("SMOKE") == "1"
    parser.add_argument("--smoke", action="store_true", default=is_smoke, help="fewest steps (also SMOKE=1)")
    parser.add_argument("--out", type=Path, help="default: runs/reproduce, or runs/reproduce_smoke")
    parser.add_argument("--results", type=Path, help="default: docs/RESULTS.md; smoke: OUT/RESULTS.md")
    jobs = default_jobs(torch.cuda.is_available())
    parser.add_argument("--jobs", type=int, help=f"commands at once (default here: {jobs}; smoke: 1)")
    options = parser.parse_args(words)
    if options.jobs is None:
        options.jobs = 1 if options.smoke else jobs
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    options.out = options.out or Path("runs", "reproduce_smoke" if options.smoke else "reproduce")
    return options


if __name__ == "__main__":
    sys.exit(main())
