"""Kill a training at a chosen point, continue it, and compare what comes out with a run nobody disturbed.

A point is the n-th function call, Python's or C's, within a part of the run: a write, a rename, a matrix product. So
points lie inside saving and inside a step as well as between them, and the same point can be visited again. Runs are
real processes of `main.py`, forked from a server that has imported everything once.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import gill.training.loop
import main
from gill.errors import TrainingError
from gill.training import Checkpoints, Validator

# The parts of a run and the functions that are them.
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "anywhere": ((main, "fit"),),
    "saving": ((Checkpoints, "save"), (Checkpoints, "export")),
    "accumulating": ((gill.training.loop, "forward_backward"),),
    "epoch edge": ((Validator, "run"), (Checkpoints, "export")),
}
# Two micro-batches a step, two epochs, a checkpoint between their ends.
SETTINGS = [
    "--preset=debug",
    "--batch-size=8",
    "--grad-accumulation-steps=2",
    "--epochs=2",
    "--steps-per-epoch=3",
    "--save-freq=2",
    "--lr-warmup-steps=0",
    "--val-batch-size=4",
    "--val-steps-per-epoch=1",
    "--print-freq=1",
    "--set",
    "num_captions=0",
    "num_panels=0",
]
_SECONDS = 300
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["gill.models.gill", "gill.training", "gill.data", "scripts.faults.kill"])


@dataclass(frozen=True)
class Point:
    """Where and how a run is ended.

    Attributes:
        part: of `PARTS`. share: in [0, 1), how far into that part's calls.
        number: of the signal. num_processes: of the run.
    """

    part: str
    share: float
    number: signal.Signals = signal.SIGKILL
    num_processes: int = 1

    @property
    def rank(self) -> int:
        """The process that is ended: the last one, or the first where only that does the work."""
        return 0 if self.part == "saving" else self.num_processes - 1


class _Calls:
    """Counts the calls within a part, and does something at one of them."""

    def __init__(self, part: str, act_at: int, act: Callable[[], None]) -> None:
        self.count, self._depth, self._act_at, self._act = 0, 0, act_at, act
        for owner, name in PARTS[part]:
            setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            self._depth += 1
            sys.setprofile(self._count)
            try:
                return function(*arguments, **named)
            finally:
                self._depth -= 1
                if not self._depth:
                    sys.setprofile(None)

        return run

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self.count += 1
            if self.count == self._act_at:
                self._act()


def count_calls(folder: Path, part: str, num_processes: int = 1) -> int:
    """Run undisturbed in `folder` and count the calls within a part, on the process that points of it end.

    Raises:
        TrainingError: the run failed.
    """
    statuses = _run(folder, Point(part, 0, num_processes=num_processes), 0)
    if any(statuses):
        raise TrainingError(f"the undisturbed run ended with {statuses}; see {folder / 'log.txt'}")
    return int((folder / "calls.txt").read_text())


def kill_and_continue(point: Point, num_calls: int, folder: Path, undisturbed: Path) -> str | None:
    """What went wrong with a run that was ended at `point` and continued; None when it ended with the same bytes.

    Args:
        num_calls: within the point's part, of an undisturbed run. folder: emptied; the run lies there.
    """
    shutil.rmtree(folder, ignore_errors=True)
    ended = _run(folder, point, 1 + int(point.share * num_calls))
    status, expected = ended[point.rank], {-point.number}
    if point.number == signal.SIGTERM:
        expected |= {main.STOPPED_STATUS, 0}  # 0: the run was at its end anyway
    if status not in expected:
        return f"the process that was to end by {point.number.name} ended with {status}"
    if point.number == signal.SIGKILL and 0 in ended:
        return f"work was lost and a process ended with status 0: {ended}"
    continued = _run(folder, point, 0)
    if any(continued):
        return f"the continued run ended with {continued}; see {folder / 'log.txt'}"
    return _difference(folder, undisturbed)


def _difference(folder: Path, undisturbed: Path) -> str | None:
    for name in ("model/weights.safetensors", "best/weights.safetensors", "metrics.jsonl"):
        if (folder / "run" / name).read_bytes() != (undisturbed / "run" / name).read_bytes():
            return f"{name} differs"
    return None


def _run(folder: Path, point: Point, act_at: int) -> list[int]:
    """The exit statuses of a run's processes, in rank order; 0 for `act_at` disturbs nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    processes = [
        _CONTEXT.Process(target=_train, args=(folder, rank, port, point, act_at if rank == point.rank else 0))
        for rank in range(point.num_processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_SECONDS)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode or 0 for process in processes]


def _train(folder: Path, rank: int, port: int, point: Point, act_at: int) -> None:
    """One process of `main.py`, as torchrun would start it."""
    with (folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    size = point.num_processes
    if size > 1:
        world = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in world.items()}
    calls = _Calls(point.part, act_at, lambda: os.kill(os.getpid(), point.number))
    status = main.main([*SETTINGS, f"--log-base-dir={folder}", "--exp-name=run"])
    if rank == point.rank:
        (folder / "calls.txt").write_text(str(calls.count))
    sys.exit(status)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
