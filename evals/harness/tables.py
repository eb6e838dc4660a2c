"""Groups of runs as Markdown tables and sheets of pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from evals.harness.measures import nearest_pictures, true_picture
from evals.harness.published import published_rows
from evals.harness.runs import Finished, Line
from evals.harness.summary import Group, told
from evals.harness.tasks import ANSWERING, CAPTIONING, DRAWING, RANKING, RETRIEVAL, TASKS, UNTOLD
from gill.data import open_image
from gill.errors import DataError

# Measures a table shows, and the one a plot shows first.
SHOWN = {
    DRAWING: (
        "clip_similarity",
        "lpips",
        "clip_text_similarity",
        "fid",
        "kid",
        "judge.shape_colour_cell",
        "judge.whole",
    ),
    RETRIEVAL: ("r@1", "r@5", "r@10", "i2t_r@1", "i2t_r@5", "i2t_r@10"),
    RANKING: ("ndcg", "mrr", "r@1", "r@5", "r@10", "r@20", "t2i_r@1", "t2i_r@10"),
    ANSWERING: ("accuracy", "accuracy.yes/no", "accuracy.number", "accuracy.other"),
    CAPTIONING: ("bleu4", "cider", "rouge_l", "judge.place", "judge.shape", "judge.colour", "judge.all"),
}
_THUMBNAIL = 112


def tasks_of(groups: Sequence[Group]) -> list[str]:
    """Their tasks, in our order."""
    return [name for name in TASKS if any(group.task == name for group in groups)]


def table(groups: Sequence[Group], task: str) -> list[str]:
    """Lines of a table: contexts in the papers' order, systems below each other, the papers' rows below ours."""
    mine = [group for group in groups if group.task == task]
    shown = shown_measures(mine)
    lines = [
        f"| context | system | n | seeds | gallery | {' | '.join(f'`{name}`' for name in shown)} |",
        "|---" * (5 + len(shown)) + "|",
    ]
    for context in TASKS[task].contexts:
        here = [group for group in mine if group.context == context]
        lines += [_row(group, shown) for group in here]
        lines += list(_published(task, context, shown)) if here else []
    return lines


def shown_measures(groups: Sequence[Group]) -> list[str]:
    """What a table shows of groups of one task."""
    return [name for name in SHOWN[TASKS[groups[0].task].answer] if any(name in each.measures for each in groups)]


def growth(groups: Sequence[Group], label: str, measures: Sequence[str]) -> list[str]:
    """Whether a system does better with every further context, a line a measure.

    Args:
        groups: of one task. label: of the system.
        measures: better when greater; one step after the other is told apart when their intervals do not meet.
    """
    contexts = TASKS[groups[0].task].contexts
    mine = sorted((group for group in groups if group.label == label), key=lambda group: contexts.index(group.context))
    lines = []
    for name in measures:
        found = [(group.context, group.estimate(name)) for group in mine]
        mixed = [
            f"{context} is {'worse than' if higher.high < lower.low else 'not told apart from'} {before}"
            for (before, lower), (context, higher) in itertools.pairwise(found)
            if higher.low <= lower.high
        ]
        order = " < ".join(group.context for group in mine)
        lines.append(f"- `{name}` of {label}: {order}" + (f", but {' and '.join(mixed)}" if mixed else ""))
    return lines


def _row(group: Group, shown: Sequence[str]) -> str:
    gallery = group.scores[0].gallery_size or ""
    cells = [told(group.estimate(name)) if name in group.measures else "" for name in shown]
    n = max(len(group.ids(name)) for name in group.measures)
    return f"| {group.context} | {shown_name(group)} | {n} | {len(group.runs)} | {gallery} | {' | '.join(cells)} |"


def shown_name(group: Group) -> str:
    """What tables and plots call a system."""
    return f"{group.label} (paper protocol)" if group.protocol == "paper" else group.label


def _published(task: str, context: str, shown: Sequence[str]) -> Iterator[str]:
    """The papers' rows; what they do not report stays blank."""
    found: dict[str, dict[str, float]] = {}
    for name in shown:
        for label, value in published_rows(task, context, name):
            found.setdefault(label, {})[name] = value
    for label, values in found.items():
        cells = " | ".join(f"{values[name]:.3f}" if name in values else "" for name in shown)
        yield f"| {context} | *paper: {label}* | | | | {cells} |"


def differences(groups: Sequence[Group], task: str, against: str) -> list[str]:
    """Lines of a table of paired differences with one system; none where it is not there."""
    mine = [group for group in groups if group.task == task]
    name, lines = main_measure(mine), []
    for group in mine:
        for other in mine:
            key = (group.context, group.protocol)
            if other.label == against != group.label and key == (other.context, other.protocol):
                cell = told(group.difference(other, name)) if name in group.measures and name in other.measures else ""
                lines.append(f"| {group.context} | {group.label} | {cell} |")
    head = [f"| context | system | `{name}` minus that of {against} |", "|---|---|---|"]
    return [*head, *lines] if lines else []


def main_measure(groups: Sequence[Group]) -> str:
    """The first measure of a task's tables that one of its runs has."""
    return next(name for name in SHOWN[TASKS[groups[0].task].answer] if any(name in each.measures for each in groups))


def origins(groups: Sequence[Group], task: str) -> list[str]:
    """Who answered and how, a line a system."""
    found: dict[str, dict[str, None]] = {}
    for run in (run for group in groups if group.task == task for run in group.runs):
        manifest = run.manifest
        said = [manifest["model"] or "no model", f"noise of seed {manifest['seed']}"]
        said += [f"drawn by {manifest['diffusion']}"] if manifest["diffusion"] else []
        said += [f"{manifest['steps']} steps"] if manifest["steps"] else []
        said += [f"guidance {manifest['guidance_scale']}"] if manifest["guidance_scale"] else []
        found.setdefault(manifest["label"], {})[", ".join(said)] = None
    return [f"- {label}: {'; '.join(ways)}" for label, ways in found.items()]


def published_ways(task: str) -> list[str]:
    """How the published protocol, by which the papers' rows were measured, differs from the corrected one."""
    return [f"- the papers' own rows (--protocol paper): {each}" for each in TASKS[task].differences if each != UNTOLD]


def accounts(groups: Sequence[Group], task: str) -> list[str]:
    """What was left out or had to be decided, a line each."""
    counts: dict[str, int] = {}
    for group in groups:
        if group.task == task:
            for reason, count in {**group.left_out, **group.runs[0].reading["notes"]}.items():
                counts[reason] = max(count, counts.get(reason, 0))
    return [f"- {count} x {reason}" for reason, count in sorted(counts.items())]


def examples(groups: Sequence[Group], task: str, count: int) -> list[dict[str, str | Image.Image]]:
    """The first questions in the richest context: what was shown, the truth, and each system's answer."""
    mine = [group for group in groups if group.task == task]
    context = next(c for c in reversed(TASKS[task].contexts) if any(group.context == c for group in mine))
    here = [group for group in mine if group.context == context]
    lines = here[0].runs[0].answered[:count]
    is_picture = TASKS[task].answer in (DRAWING, RETRIEVAL)
    rows: list[dict[str, str | Image.Image]] = []
    for line in lines:
        run = here[0].runs[0]
        row: dict[str, str | Image.Image] = {"input": _words(line)}
        for number, part in enumerate(part for part in line["prompt"] if isinstance(part, dict)):
            row[f"input picture {number + 1}"] = _opened(_data(run) / part["picture"])
        row["truth"] = _thumbnail(partial(true_picture, run, line)) if is_picture else _true_words(line)
        rows.append(row)
    for group in here:
        for row, answer in zip(rows, _answers(group.runs[0], [line["id"] for line in lines]), strict=True):
            row[shown_name(group)] = answer
    return rows


def _answers(run: Finished, ids: Sequence[str]) -> list[str | Image.Image]:
    lines = {line["id"]: line for line in run.answered}
    there = [lines[each] for each in ids if each in lines]
    kind = TASKS[run.manifest["task"]].answer
    if kind == RETRIEVAL:
        found = dict(zip((line["id"] for line in there), nearest_pictures(run, there), strict=True))
        return [_opened(_data(run) / found[each]) if each in found else "not asked" for each in ids]
    if kind == DRAWING:
        return [_opened(run.folder / lines[each]["output"]) if each in lines else "not asked" for each in ids]
    return [_said(lines[each]) if each in lines else "not asked" for each in ids]


def _true_words(line: Line) -> str:
    return line["candidates"][line["right"]] if "candidates" in line else " / ".join(dict.fromkeys(line["references"]))


def _said(line: Line) -> str:
    if "scores" not in line:
        return line["output"]
    return line["candidates"][max(range(len(line["scores"])), key=line["scores"].__getitem__)]


def _opened(path: Path) -> str | Image.Image:
    return _thumbnail(partial(open_image, path, "report"))


def _thumbnail(opened: Callable[[], Image.Image]) -> str | Image.Image:
    """A small copy of a picture that may be gone since it was asked about."""
    try:
        picture = opened().copy()
    except DataError:
        return "lost"
    picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return picture


def _words(line: Line) -> str:
    return " ".join("(picture)" if isinstance(part, dict) else part for part in line["prompt"])


def _data(run: Finished) -> Path:
    return Path(run.manifest["data"])
