"""Samples that cannot be used: counted, named in a report, and capped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gill.errors import NOT_JSON, ConfigError, DataError

REPORT_NAME = "bad_samples.jsonl"
# The share of bad samples is judged against at least so many tries (or the whole file, if it is shorter): one broken
# picture among the first few is no reason to stop, a wrong image folder is one within the first batches.
_FEWEST_TRIES = 200


@dataclass(frozen=True)
class BadSample:
    """One sample that was left out: `source` file, `line` from 1 (0 = none), and why."""

    source: str
    line: int
    reason: str


class BadSamples:
    """The bad samples of one data set, each counted and reported once, also over restarts.

    Args:
        report: file to append to, one JSON object a line; None keeps them in memory only.
        num_rows: usable rows of the data set.
        max_fraction: in [0, 1]; beyond this share of the tries, adding raises.

    Raises:
        ConfigError: `max_fraction` outside [0, 1].
    """

    def __init__(self, report: Path | None, num_rows: int, max_fraction: float) -> None:
        if not 0 <= max_fraction <= 1:
            raise ConfigError(f"max_bad_fraction must lie in [0, 1], got {max_fraction}")
        self.report, self.max_fraction = report, max_fraction
        self._fewest_tries = min(num_rows, _FEWEST_TRIES)
        self._num_rows, self._num_tried, self._num_unusable = num_rows, 0, 0
        self._found: set[tuple[str, int]] = set()
        self._reported = _places_in(report) if report is not None else set()

    def __len__(self) -> int:
        return len(self._found) + self._num_unusable

    def add_unusable(self, found: Sequence[BadSample], is_written: bool = True) -> None:
        """Count what opening the data set found, by a look at every row: judged against all rows, once.

        Args:
            is_written: False where another process, which found the same, reports it.

        Raises:
            DataError: as `add`.
        """
        for sample in found if is_written else ():
            self._write(sample)
        self._num_unusable += len(found)
        num_seen = self._num_rows + len(found)
        if len(found) > self.max_fraction * num_seen:
            raise self._too_many(len(found), num_seen, found[-1])

    def add(self, found: Iterable[BadSample], num_tried: int) -> None:
        """Count what `num_tried` further reads found.

        Raises:
            DataError: too large a share is bad; the message names the last one.
        """
        self._num_tried += num_tried
        last = None
        for last in found:
            self._found.add((last.source, last.line))
            self._write(last)
        num_bad = len(self._found)
        if last is not None and num_bad > self.max_fraction * max(self._num_tried, self._fewest_tries):
            raise self._too_many(num_bad, max(self._num_tried, num_bad), last)

    def _too_many(self, num_bad: int, num_seen: int, last: BadSample) -> DataError:
        listed = f" (all are listed in {self.report})" if self.report else ""
        return DataError(
            f"{num_bad} of {num_seen} samples are bad, more than max_bad_fraction={self.max_fraction:g} allows; "
            f"the last: {last.reason}. Mend the data{listed}, or raise --max-bad-fraction"
        )

    def _write(self, sample: BadSample) -> None:
        place = (sample.source, sample.line)
        if self.report is None or place in self._reported:
            return
        self._reported.add(place)
        with self.report.open("a", encoding="utf-8") as file:  # one short write: several processes may append
            file.write(json.dumps(dataclasses.asdict(sample)) + "\n")


def _places_in(report: Path) -> set[tuple[str, int]]:
    if not report.is_file():
        return set()
    places = set()
    for line in report.read_bytes().splitlines():
        try:
            row = json.loads(line)
            places.add((str(row["source"]), int(row["line"])))
        except (*NOT_JSON, TypeError, KeyError):
            continue  # torn by a kill: the sample is reported again when it is met again
    return places
