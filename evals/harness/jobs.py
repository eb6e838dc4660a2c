"""Command lines carried out one after the other in this process, or several at once in processes of their own."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from tqdm import tqdm

from gill.errors import TrainingError

_ROOT = Path(__file__).resolve().parents[2]
_TOLD_LINES = 5  # of the log of a command that failed
_MOST_JOBS = 4  # each takes about a gigabyte
_GO_ON = "the same command goes on from there"
Programs = Mapping[str, Callable[[list[str]], int]]


@dataclass(frozen=True)
class Command:
    """A program of this project with its words.

    Attributes:
        program: its path, e.g. "evals/generate.py". name: of its log; no two of a list have the same.
        after: names of commands before it in the list that it needs.
    """

    program: str
    words: tuple[str, ...]
    name: str
    after: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"$ python {self.program} {shlex.join(self.words)}"


def carry_out_here(commands: Sequence[Command], programs: Programs) -> None:
    """Carry out commands one after the other in this process; each is printed as it begins.

    Args:
        programs: what a program's path stands for; returns an exit status.

    Raises:
        TrainingError: one failed, and what comes behind it is left.
    """
    for command in commands:
        print(command, flush=True)
        if programs[command.program](list(command.words)):
            raise TrainingError(f"{command.program} failed; what it says stands above, and {_GO_ON}")


def carry_out_apart(commands: Sequence[Command], jobs: int, logs: Path) -> None:
    """Carry out commands in their order, several at once in processes of their own; one waits for those it needs.

    When one fails, or this process is told to end, no other begins; on SIGTERM those that run are told to end too.

    Args:
        jobs: commands at once; each gets its share of the cores. logs: folder of what they print.

    Raises:
        TrainingError: one failed; those that had begun were let finish.
    """
    logs.mkdir(parents=True, exist_ok=True)
    crew = _Crew(jobs, logs, {command.name: threading.Event() for command in commands})
    failures: list[TrainingError] = []
    with crew.stopped_by_signal(), ThreadPoolExecutor(jobs) as pool:
        try:
            futures = [pool.submit(crew.run, command) for command in commands]
            for future in tqdm(as_completed(futures), total=len(futures), unit="command"):
                try:
                    future.result()
                except TrainingError as error:
                    tqdm.write(str(error), file=sys.stderr)
                    failures.append(error)
        finally:
            crew.stop.set()
    if failures:
        raise TrainingError(f"{len(failures)} of {len(commands)} commands failed, as is said above; {_GO_ON}")


def default_jobs(has_gpu: bool) -> int:
    """One on a GPU, which commands would have to share; otherwise one a core, up to four."""
    return 1 if has_gpu else min(_MOST_JOBS, _num_cores())


@dataclass
class _Crew:
    """Processes that run, and whether more may begin."""

    jobs: int
    logs: Path
    ended: Mapping[str, threading.Event]
    stop: threading.Event = field(default_factory=threading.Event)
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def run(self, command: Command) -> None:
        """Carry out one command when those it needs have ended, unless the others are over.

        Raises:
            TrainingError: it failed.
        """
        # Those it needs stand before it, so that they have begun and need no worker that waits here.
        for name in command.after:
            self.ended[name].wait()
        try:
            if not self.stop.is_set():
                self._carry_out(command)
        finally:
            self.ended[command.name].set()

    def _carry_out(self, command: Command) -> None:
        tqdm.write(str(command))
        log = self.logs / f"{command.name}.log"
        with log.open("ab") as file:
            file.write(f"{command}\n".encode())
            file.flush()
            status = self._wait(command, file)
        if status:
            self.stop.set()
            raise TrainingError(f"{command.program} {_ending(status)} ({log}):\n{_last_lines(log)}")

    def _wait(self, command: Command, file: IO[bytes]) -> int:
        words = [sys.executable, str(_ROOT / command.program), *command.words]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._num_threads())}
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment)
        self.running.add(process)
        if self.stop.is_set():  # told to end between the last look and now
            process.terminate()
        try:
            return process.wait()
        finally:
            self.running.discard(process)

    def _num_threads(self) -> int:
        """A command's share of the cores, or less where the environment says less."""
        share, asked = max(1, _num_cores() // self.jobs), os.environ.get("OMP_NUM_THREADS", "")
        return min(share, int(asked)) if asked.isdigit() and int(asked) else share

    @contextlib.contextmanager
    def stopped_by_signal(self) -> Iterator[None]:
        """SIGTERM ends the processes, which save what they have, and lets none begin."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def end(number: int, frame: FrameType | None) -> None:
            self.stop.set()
            for process in list(self.running):
                process.terminate()

        before = signal.signal(signal.SIGTERM, end)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ending(status: int) -> str:
    if status >= 0:
        return f"failed with status {status}"
    name = signal.Signals(-status).name
    return f"was ended by {name}" + ("; where memory ran out, fewer --jobs take less" if name == "SIGKILL" else "")


def _last_lines(log: Path) -> str:
    with log.open(encoding="utf-8", errors="replace") as file:
        return "".join(deque(file, _TOLD_LINES)).strip()
