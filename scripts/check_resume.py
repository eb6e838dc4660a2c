"""End a training at random points, continue it, and see that it ends with the same bytes.

    python scripts/check_resume.py --kills 100 --out data/kills

Points lie anywhere in the run, inside saving, inside a step's accumulation and at the ends of epochs, by SIGKILL and by
SIGTERM, of runs of one process and of two. Each continued run must have the undisturbed run's weights, best weights and
metrics, byte for byte. The report is `kills.json`: one entry a point, and the counts that are printed at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

from tqdm import tqdm

from gill.errors import TrainingError
from gill.files import write_json
from scripts.command import carry_out
from scripts.faults.kill import PARTS, Point, count_calls, kill_and_continue


def main(words: list[str] | None = None) -> int:
    """Kill and continue; returns the exit status."""
    options = _parse(words)
    return carry_out("check_resume", lambda: check(options.out, options.kills, options.seed))


def draw_points(num_kills: int, seed: int) -> list[Point]:
    """Points in turn over the parts; every fourth ends by SIGTERM, every fifth is of a run of two processes."""
    rng = random.Random(seed)
    parts = list(PARTS)
    return [
        Point(
            parts[number % len(parts)],
            rng.random(),
            signal.SIGTERM if number // len(parts) % 4 == 3 else signal.SIGKILL,
            2 if number % 5 == 4 else 1,
        )
        for number in range(num_kills)
    ]


def check(out: Path, num_kills: int, seed: int) -> str:
    """Visit random points and write the report.

    Raises:
        TrainingError: a run did not end as it must; the report names them.
    """
    points = draw_points(num_kills, seed)
    wanted = sorted({(point.part, point.num_processes) for point in points})
    calls = {(part, size): count_calls(_undisturbed(out, part, size), part, size) for part, size in tqdm(wanted)}
    entries, failures = [], []
    for point in tqdm(points, desc="kills", unit="kill"):
        key = (point.part, point.num_processes)
        wrong = kill_and_continue(point, calls[key], out / "killed", _undisturbed(out, *key))
        at = 1 + int(point.share * calls[key])
        entry = {"part": point.part, "signal": point.number.name, "processes": point.num_processes, "call": at}
        entries.append({**entry, "of": calls[key], "wrong": wrong})
        failures += [entries[-1]] if wrong else []
        _write_report(out, entries)
    counts = _counts(entries)
    if failures:
        raise TrainingError(f"{len(failures)} of {num_kills} runs did not end as they must: {failures[0]}")
    listed = "\n".join(f"  {count:4} {name}" for name, count in sorted(counts.items()))
    return f"{num_kills} of {num_kills} continued runs ended with the undisturbed run's bytes\n{listed}"


def _counts(entries: list[dict[str, object]]) -> Counter[str]:
    return Counter(f"{entry['part']}, {entry['signal']}, processes {entry['processes']}" for entry in entries)


def _write_report(out: Path, entries: list[dict[str, object]]) -> None:
    """Written after every kill, so that a check that is stopped has told what it saw."""
    report = {"counts": _counts(entries), "points": entries}
    write_json(out / "kills.json", report)


def _undisturbed(out: Path, part: str, size: int) -> Path:
    return out / f"undisturbed-{part.replace(' ', '-')}-{size}"


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="points")
    parser.add_argument("--seed", type=int, default=0, help="of the points")
    parser.add_argument("--out", type=Path, default=Path("data/kills"), help="runs and report")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
