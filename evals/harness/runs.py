"""Folders of answers: one system, one task, one context, one seed.

    run.json          how the answers were made; another way of making them wants another folder
    reading.json      what of the data could not be asked, and what was met in it
    shards/           a line for each item, in the order in which processes answered
    pictures/, vectors/   the answers themselves
    outputs.jsonl     all lines in the order of the data, once the last one is there

The unit of work is a batch: its lines appear together after its files, and a batch of which a line is missing is
answered again as a whole. So whoever answers which batch, and however often they were interrupted, the folder ends with
the same bytes.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gill.errors import ConfigError, DataError, MissingFileError
from gill.files import write_json, write_text

MANIFEST, READING, OUTPUTS, SHARDS = "run.json", "reading.json", "outputs.jsonl", "shards"
PICTURES, VECTORS = "pictures", "vectors"
LEFT_OUT = "left_out"
Line = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """Number `rank` of `size` processes that share a run."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ConfigError(f"--shard wants K/N with 0 <= K < N, got {self.rank}/{self.size}")

    @classmethod
    def parse(cls, words: str) -> Shard:
        """ "1/4" is the second of four.

        Raises:
            ConfigError: something else.
        """
        rank, _, size = words.partition("/")
        if not (rank.isdecimal() and size.isdecimal()):
            raise ConfigError(f"--shard wants K/N, such as 0/4, got {words!r}")
        return cls(int(rank), int(size))


class Run:
    """A folder that answers are added to; one that holds none yet may be claimed anew.

    Args:
        manifest: what must not change while a run goes on.

    Raises:
        ConfigError: the folder holds answers that were made otherwise. DataError: its manifest is damaged.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any], shard: Shard) -> None:
        self.folder, self.shard = folder, shard
        _claim(folder / MANIFEST, manifest)
        self.done = set(self._lines())
        self._path = folder / SHARDS / f"{shard.rank:05d}-of-{shard.size:05d}.jsonl"

    def pending(self, batches: Sequence[Sequence[str]]) -> list[int]:
        """Numbers of this process's batches, given as ids, that lack an answer."""
        mine = range(self.shard.rank, len(batches), self.shard.size)
        return [number for number in mine if not self.done.issuperset(batches[number])]

    def add(self, lines: Sequence[Line]) -> None:
        """Lines of a whole batch; what of it an earlier process has said is not said again."""
        new = [line for line in lines if line["id"] not in self.done]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in new)
        with self._path.open("a+b") as file:
            file.write((_torn_end(file.tell(), self._path) + text).encode())
        self.done.update(line["id"] for line in new)

    def merge(self, ids: Sequence[str]) -> bool:
        """Write `outputs.jsonl` if every item has its line; returns whether it has."""
        lines = self._lines()
        if not lines.keys() >= set(ids):
            return False
        text = "".join(json.dumps(lines[each]) + "\n" for each in ids)
        write_text(self.folder / OUTPUTS, text)
        return True

    def left_out(self) -> Counter[str]:
        """By reason, the items of finished batches that could not be asked."""
        return Counter(line[LEFT_OUT] for line in self._lines().values() if LEFT_OUT in line)

    def _lines(self) -> dict[str, Line]:
        """By item, what any process has said so far."""
        return {line["id"]: line for line in _shard_lines(self.folder)}


@dataclass(frozen=True)
class Finished:
    """A run that is whole: its manifest, what was said of its data, and its lines in the data's order."""

    folder: Path
    manifest: Mapping[str, Any]
    reading: Mapping[str, Any]
    lines: tuple[Line, ...]

    @property
    def answered(self) -> list[Line]:
        """The questions that were answered."""
        return [line for line in self.lines if line["kind"] == "question" and LEFT_OUT not in line]

    def left_out(self) -> Counter[str]:
        """By reason, what was left out: of the data as a whole and one by one."""
        counts = Counter[str](self.reading["left_out"])
        for line in self.lines:
            if LEFT_OUT in line:
                counts[f"{line['kind']}: {line[LEFT_OUT]}"] += 1
        return counts


def read_run(folder: Path) -> Finished:
    """A finished run.

    Raises:
        MissingFileError: no run there, or one that is not finished. DataError: damaged files.
    """
    if not (folder / OUTPUTS).is_file():
        is_begun = (folder / MANIFEST).is_file()
        hint = "is not finished; run the same generate command again" if is_begun else "holds no run of generate.py"
        raise MissingFileError(f"{folder} {hint}")
    try:
        manifest, reading = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (MANIFEST, READING))
        lines = [json.loads(line) for line in (folder / OUTPUTS).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        hint = f"remove {OUTPUTS} and generate again, or choose another folder if it is {MANIFEST}"
        raise DataError(f"{folder} is damaged ({error}); {hint}") from error
    return Finished(folder, manifest, reading, tuple(lines))


def _claim(path: Path, manifest: Mapping[str, Any]) -> None:
    if not any((path.parent / name).is_dir() for name in (SHARDS, PICTURES, VECTORS)):
        write_json(path, manifest)
        return
    if not path.is_file():
        raise ConfigError(f"{path.parent} holds answers whose {MANIFEST} is gone; choose another folder")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*manifest, *found} if manifest.get(name) != found.get(name))
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); choose another folder") from error
    if changed:
        told = ", ".join(_change(name, found.get(name), manifest.get(name)) for name in changed)
        raise ConfigError(f"{path.parent} holds answers made with {told}; choose another folder")


def _change(name: str, before: Any, now: Any) -> str:
    if name == "questions":
        return "other questions (another --limit, or data that changed)"
    return "other weights" if name == "weights" else f"{name} {before!r}, now {now!r}"


def _shard_lines(folder: Path) -> Iterator[Line]:
    """Lines of all processes, past and present; one that a killed process did not finish is passed over."""
    for path in sorted((folder / SHARDS).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _torn_end(length: int, path: Path) -> str:
    """A newline, if the file ends in the middle of a line."""
    if not length:
        return ""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return "" if file.read(1) == b"\n" else "\n"
