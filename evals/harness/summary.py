"""Runs that belong together, and what they score with intervals.

Runs of one task, context, protocol and label are one system under several seeds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evals.harness import measures
from evals.harness.answers import read_rows
from evals.harness.measures import NO_SHARES, Scorer, Scores
from evals.harness.runs import OUTPUTS, Finished
from evals.harness.sets import SET_MEASURES, estimate_set
from gill import metrics
from gill.errors import ConfigError, DataError
from gill.files import digest_file, write_array, write_text
from gill.metrics import Estimate, estimate_mean, paired_difference

SCORES = "scores.json"


@dataclass(frozen=True)
class Group:
    """One system at one task, in one context, under one protocol.

    Attributes:
        runs, scores: of each seed.
    """

    task: str
    context: str
    protocol: str
    label: str
    runs: tuple[Finished, ...]
    scores: tuple[Scores, ...]
    _known: dict[str, Estimate] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def measures(self) -> list[str]:
        """Names of what is measured."""
        first = self.scores[0]
        return [*first.values, *(name for name, measure in SET_MEASURES.items() if measure.rows in first.rows)]

    @property
    def left_out(self) -> Counter[str]:
        """By reason, of the seed where it was most."""
        most = Counter[str]()
        for each in self.scores:
            most |= each.left_out
        return most

    def values(self, measure: str, ids: Sequence[str] | None = None) -> Tensor:
        """float64[seeds, items] of the items that every seed has a score for."""
        wanted = self.ids(measure) if ids is None else ids
        return torch.tensor([[row[each] for each in wanted] for row in self._rows(measure)], dtype=torch.float64)

    def ids(self, measure: str) -> list[str]:
        """Items that every seed has a score for, in the order of the data."""
        is_of_set = measure in SET_MEASURES
        scored = [score.ids for score in self.scores] if is_of_set else [tuple(row) for row in self._rows(measure)]
        in_all = set(scored[0]).intersection(*scored)
        return [each for each in scored[0] if each in in_all]

    def estimate(self, measure: str) -> Estimate:
        """Mean over items and seeds with its 95 % bootstrap interval.

        Raises:
            DataError: the seeds share no item.
        """
        if measure in SET_MEASURES:
            if measure not in self._known:  # a distance of sets takes long, and tables ask for it again
                ids = self.ids(measure)
                self._known[measure] = estimate_set(measure, self._set_rows(measure, ids), clusters=self._subjects(ids))
            return self._known[measure]
        ids = self.ids(measure)
        if not ids:
            raise DataError(f"{self.label}, {self.task} {self.context}: no item has {measure} under every seed")
        return estimate_mean(self.values(measure, ids), clusters=self._subjects(ids), is_share=measure not in NO_SHARES)

    def difference(self, other: Group, measure: str) -> Estimate:
        """By how much this system scores higher than another on the items that both answered.

        Raises:
            DataError: they share none.
        """
        others = set(other.ids(measure))
        ids = [each for each in self.ids(measure) if each in others]
        if not ids:
            raise DataError(f"{self.label} and {other.label} answered no item of {self.task} {self.context} both")
        if measure in SET_MEASURES:
            rows, others_rows = self._set_rows(measure, ids), other._set_rows(measure, ids)
            return estimate_set(measure, rows, others_rows, clusters=self._subjects(ids))
        ours, theirs = self.values(measure, ids), other.values(measure, ids)
        theirs = theirs if len(theirs) == len(ours) else theirs.mean(0)
        is_share = measure not in NO_SHARES
        return paired_difference(ours, theirs, clusters=self._subjects(ids), is_share=is_share)

    def _subjects(self, ids: Sequence[str]) -> list[str]:
        return [self.scores[0].subjects[each] for each in ids]

    def _set_rows(self, measure: str, ids: Sequence[str]) -> list[Tensor]:
        """float[items, K] of each seed."""
        found = []
        for score in self.scores:
            places = {each: place for place, each in enumerate(score.ids)}
            found.append(score.rows[SET_MEASURES[measure].rows][[places[each] for each in ids]])
        return found

    def _rows(self, measure: str) -> list[dict[str, float]]:
        return [
            {name: value for name, value in zip(each.ids, each.values[measure], strict=True) if not math.isnan(value)}
            for each in self.scores
        ]


def require_label(groups: Sequence[Group], label: str) -> None:
    """Refuse a name that no system has.

    Raises:
        ConfigError: it has none.
    """
    labels = dict.fromkeys(group.label for group in groups)
    if label not in labels:
        raise ConfigError(f"no run is called {label!r}; there are {', '.join(labels)}")


def group_runs(runs: Sequence[Finished], scores: Sequence[Scores]) -> list[Group]:
    """Groups in the order of their first runs.

    Raises:
        ConfigError: a run that is given twice. DataError: runs of one group that asked other questions.
    """
    twice = [str(folder) for folder, count in Counter(run.folder.resolve() for run in runs).items() if count > 1]
    if twice:
        raise ConfigError(f"{', '.join(twice)} would count as several seeds; give each folder once")
    keys = [tuple(run.manifest[name] for name in ("task", "context", "protocol", "label")) for run in runs]
    groups = []
    for key in dict.fromkeys(keys):
        members = [place for place, other in enumerate(keys) if other == key]
        if len({runs[place].manifest["questions"] for place in members}) > 1:
            folders = ", ".join(str(runs[place].folder) for place in members)
            raise DataError(f"{folders} are called {key[-1]!r} alike but asked other questions; give them --label")
        if len({_maker(runs[place]) for place in members}) < len(members):
            folders = ", ".join(str(runs[place].folder) for place in members)
            raise ConfigError(f"{folders} are one system with the same noise, which is one seed; give one of them")
        task, context, protocol, label = key
        mine = tuple(runs[place] for place in members), tuple(scores[place] for place in members)
        groups.append(Group(task, context, protocol, label, *mine))
    return groups


def _maker(run: Finished) -> str:
    return json.dumps([run.manifest[name] for name in ("model", "weights", "seed", "steps", "guidance_scale")])


def score_run(run: Finished, scorer: Scorer, settings: dict[str, Any]) -> Scores:
    """Scores of a run; kept in its folder and read back while neither answers, settings nor measures change.

    They are not kept while a picture cannot be read: it may come back.
    """
    path = run.folder / SCORES
    made_of = {**settings, "outputs": digest_file(run.folder / OUTPUTS), "measures": _measures()}
    if path.is_file() and (found := _read_scores(path, made_of)):
        return found
    scores = scorer.score(run)
    path.unlink(missing_ok=True)  # while its rows are replaced
    if scores.left_out != run.left_out():
        return scores
    for name, rows in scores.rows.items():
        write_array(_rows_file(path, name), rows.numpy())
    content = {
        "made_of": made_of,
        "ids": scores.ids,
        "values": scores.values,
        "gallery_size": scores.gallery_size,
        "left_out": scores.left_out,
        "rows": list(scores.rows),
        "subjects": scores.subjects,
    }
    write_text(path, json.dumps(content) + "\n")
    return scores


@cache
def _measures() -> str:
    """A digest of the code that scores."""
    paths = [Path(measures.__file__), *sorted(Path(metrics.__file__).parent.glob("*.py"))]
    return hashlib.sha256("".join(map(digest_file, paths)).encode()).hexdigest()


def _read_scores(path: Path, made_of: dict[str, Any]) -> Scores | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["made_of"] != made_of:
            return None
        rows = {name: torch.from_numpy(read_rows(_rows_file(path, name))) for name in found["rows"]}
        left_out, subjects = Counter(found["left_out"]), found["subjects"]
        return Scores(tuple(found["ids"]), found["values"], found["gallery_size"], left_out, rows, subjects)
    except (ValueError, LookupError, TypeError):
        return None  # half of a file of an older version: scored again


def _rows_file(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}_{name}.npy")


def told(estimate: Estimate) -> str:
    """A mean and its interval, and the deviation of several seeds' means, as tables print it."""
    deviation = f" ± {estimate.seed_deviation:.3f}" if estimate.num_seeds > 1 else ""
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]{deviation}"
