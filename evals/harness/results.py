"""Sections of docs/RESULTS.md: one a table, between marks, so that what is written around them by hand stays."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals.harness.plans import GROWING, SHORT_STEPS, Plan, Variant
from evals.harness.plots import plot, plot_variants
from evals.harness.summary import Group, told
from evals.harness.tables import (
    accounts,
    differences,
    growth,
    origins,
    published_ways,
    shown_measures,
    table,
    tasks_of,
)
from evals.harness.tasks import TASKS
from gill.errors import DataError
from gill.files import write_text
from gill.models.gill import find_preset, read_trained

_LESS_IS_BETTER = {"lpips", "fid", "kid"}
_BASELINE = {"drawing": "diffusion alone", "retrieval": "frozen CLIP"}


def section(
    name: str, plan: Plan, groups: Sequence[Group], runs: Mapping[str, Sequence[Path]], pictures: Path
) -> list[str]:
    """Markdown lines of a table's section; plots are written into the folder `pictures`.

    Args:
        runs: training runs by variant, of every seed.
    """
    seeds = max(len(folders) for folders in runs.values())
    lines = [
        f"## {plan.title}",
        "",
        f"`make reproduce{'' if name == 'main' else f' TABLE={name}'}`: {seeds} training seeds over the same frozen",
        "parts, 95 % bootstrap intervals over questions within seeds, ± standard deviation of the seeds' own means",
        "(which intervals do not contain), the corrected protocol. The papers' rows are of photographs and models of",
        "6.7 B parameters.",
        "",
    ]
    pictures.mkdir(parents=True, exist_ok=True)
    if plan.has_ablation:
        path = pictures / f"results_{name}.png"
        return [*lines, *_ablation(plan, groups, runs, path), "", f"![{plan.title}]({pictures.name}/{path.name})", ""]
    for task in tasks_of(groups):
        path = pictures / f"results_{task}.png"
        plot(groups, task, path)
        lines += [f"### {task}", "", f"To {TASKS[task].about}.", "", *table(groups, task), ""]
        paired = differences(groups, task, _BASELINE.get(TASKS[task].answer, ""))
        lines += [*paired, ""] if paired else []
        notes = [*origins(groups, task), *published_ways(task), *accounts(groups, task)]
        lines += [*_growth(groups, task), *notes, "", f"![{task}]({pictures.name}/{path.name})", ""]
    return lines


def _growth(groups: Sequence[Group], task: str) -> list[str]:
    """The papers' claim: the more context, the better; of what the table shows of the first system."""
    claim = GROWING.get(task, ())
    mine = [group for group in groups if group.task == task and group.context in claim]
    if not mine:
        return []
    head = "More context is better where no interval reaches the one before:"
    measures = [name for name in shown_measures(mine) if name not in _LESS_IS_BETTER]
    return [head, "", *growth(mine, mine[0].label, measures), ""]


def _ablation(plan: Plan, groups: Sequence[Group], runs: Mapping[str, Sequence[Path]], path: Path) -> list[str]:
    """One row a variant: retrieval and embedding distance of all seeds, drawings of the first."""
    num_asked = max(len(score.ids) for group in groups for score in group.scores)
    recipe = find_preset("flatland").recipe
    lines = [
        f"Trainings of {SHORT_STEPS} steps (of the main tables: {recipe.num_epochs * recipe.steps_per_epoch:,}).",
        f"Found and drawn: the last picture of {num_asked} stories, from five texts and four pictures. Distance: of",
        "mapped sequences to the text encoder's, on validation pairs, mean over seeds. Drawings are of the first seed.",
        "",
        "| variant | numbers that train | found `r@1` | distance | `clip_similarity` | `judge.shape_colour_cell` "
        "| paper, `clip_similarity` |",
        "|---|---|---|---|---|---|---|",
    ]
    labels = [variant.label for variant in plan.variants]
    found, drawn = (
        {group.label: group for group in groups if group.task == task} for task in ("vist-retrieval", "vist-generation")
    )
    lines += [_variant_row(each, runs[each.label], found[each.label], drawn[each.label]) for each in plan.variants]
    measured = {
        "found, r@1": [found[label].estimate("r@1") for label in labels],
        "drawn, CLIP similarity": [drawn[label].estimate("clip_similarity") for label in labels],
    }
    plot_variants(labels, measured, [variant.published for variant in plan.variants], path)
    return lines


def _variant_row(variant: Variant, runs: Sequence[Path], found: Group, drawn: Group) -> str:
    cells = [variant.label, f"{num_trainable(runs[0]):,}", told(found.estimate("r@1"))]
    cells += [f"{statistics.fmean(map(conditioning_distance, runs)):.3f}"]
    cells += [told(drawn.estimate(name)) for name in ("clip_similarity", "judge.shape_colour_cell")]
    cells += ["" if variant.published is None else f"{variant.published:.3f}"]
    return f"| {' | '.join(cells)} |"


def conditioning_distance(run: Path) -> float:
    """Of the last validation of a training run.

    Raises:
        DataError: the run was not validated, or its log is damaged.
    """
    path = run / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return float([row["val/conditioning"] for row in rows if "val/conditioning" in row][-1])
    except (OSError, ValueError, LookupError) as error:
        raise DataError(f"{path} holds no validation ({error!r}); train again in another folder") from error


def num_trainable(run: Path) -> int:
    """Numbers that train, from a run's saved weights."""
    return read_trained(run / "model").num_values


def decision_table(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Macro-F1 of the decision between fetching and drawing, a row a seed, beside constant choices and the paper's."""
    if not reports:
        return []
    lines = [
        "### decision",
        "",
        "To decide between fetching and drawing: macro-F1 on prompts it was not trained on.",
        "",
    ]
    lines += ["| system | macro-F1 | n |", "|---|---|---|"]
    for seed, scores in enumerate(reports):
        f1, n = scores["f1"], scores["num_generate"] + scores["num_retrieve"]
        lines.append(f"| GILL, seed {seed} | {f1['value']:.3f} [{f1['low']:.3f}, {f1['high']:.3f}] | {n} |")
    first = reports[0]
    lines += [f"| always {name} | {value:.3f} | |" for name, value in first["constant_f1"].items()]
    lines.append(f"| a coin | {first['coin_f1']:.3f} | |")
    lines += [f"| *paper: {name}* | {value:.3f} | |" for name, value in first["published"].items()]
    return [*lines, ""]


def write_section(path: Path, name: str, lines: Sequence[str]) -> None:
    """Put a section between its marks, at the end of the file where there are none yet.

    Raises:
        DataError: a mark without its end.
    """
    begin, end = f"<!-- reproduce: {name} -->", f"<!-- end of reproduce: {name} -->"
    text = path.read_text(encoding="utf-8") if path.is_file() else "# Results\n"
    block = "\n".join([begin, "", *lines, end])
    before, mark, rest = text.partition(begin)
    if mark and end not in rest:
        raise DataError(f"{path} has the mark {begin} without {end}; remove it")
    if mark:
        after = rest.partition(end)[2]
        write_text(path, before + block + after)
    else:
        write_text(path, f"{text.rstrip()}\n\n{block}\n")
