"""Groups of runs as bars with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from evals.harness.summary import Group
from evals.harness.tables import main_measure, shown_name
from evals.harness.tasks import TASKS
from gill.metrics import Estimate


def plot(groups: Sequence[Group], task: str, path: Path) -> None:
    """Bars by context and system, with intervals; a PNG."""
    shown = main_measure([group for group in groups if group.task == task])
    mine = [group for group in groups if group.task == task and shown in group.measures]
    contexts = [context for context in TASKS[task].contexts if any(group.context == context for group in mine)]
    labels = list(dict.fromkeys(shown_name(group) for group in mine))
    figure = Figure(figsize=(5.2, 2.8))
    axes = figure.subplots()
    width = 0.8 / len(labels)
    for number, label in enumerate(labels):
        here = [group for group in mine if shown_name(group) == label]
        places = [contexts.index(group.context) + (number - (len(labels) - 1) / 2) * width for group in here]
        found = [group.estimate(shown) for group in here]
        means = [each.mean for each in found]
        axes.bar(places, means, width, label=label, yerr=_errors(found), capsize=2)
    axes.set_xticks(range(len(contexts)), contexts)
    axes.set_ylabel(shown)
    axes.legend(fontsize=7)
    _save(figure, path)


def plot_variants(
    labels: Sequence[str], measured: Mapping[str, Sequence[Estimate]], published: Sequence[float | None], path: Path
) -> None:
    """Variants below each other, a panel a measure; what the paper reports of the last measure as diamonds; a PNG."""
    figure = Figure(figsize=(7.6, 0.8 + 0.32 * len(labels)))
    panels = figure.subplots(1, len(measured), sharey=True)
    rows = range(len(labels))
    for axes, (name, found) in zip(panels, measured.items(), strict=True):
        axes.barh(rows, [each.mean for each in found], xerr=_errors(found), label="here", capsize=2)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_xlabel(name)
    known = [(value, row) for row, value in enumerate(published) if value is not None]
    panels[-1].scatter(*zip(*known, strict=True), marker="D", color="tab:orange", zorder=3, label="the paper")
    panels[-1].legend(fontsize=7)
    panels[0].set_yticks(rows, labels)
    panels[0].invert_yaxis()
    _save(figure, path)


def _errors(found: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the intervals below and above the means; none where an interval has no end."""
    sides = [[each.mean - each.low for each in found], [each.high - each.mean for each in found]]
    return [[max(length, 0) if math.isfinite(length) else 0 for length in side] for side in sides]


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
