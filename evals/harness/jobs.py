"""Command lines carried out one after the other in this process, or several at once in processes of their own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from gill.errors import TrainingError

_ROOT = Path(__file__).resolve().parents[2]
_TOLD_LINES = 5  # of the log of a command that failed
Programs = Mapping[str, Callable[[list[str]], int]]


@dataclass(frozen=True)
class Command:
    """A program of this project with its words.

    Attributes:
        program: its path, e.g. "evals/generate.py". name: of its log.
    """

    program: str
    words: tuple[str, ...]
    name: str

    def __str__(self) -> str:
        return f"$ python {self.program} {shlex.join(self.words)}"


@dataclass(frozen=True)
class Workers:
    """Who carries out commands.

    Attributes:
        jobs: commands at once; each gets its share of the cores. One is carried out in this process.
        programs: what a program's path stands for in this process; returns an exit status.
        logs: folder of what commands in processes of their own print.
    """

    jobs: int
    programs: Programs
    logs: Path

    def carry_out(self, commands: Sequence[Command]) -> None:
        """Carry out commands that do not wait for each other; each is printed as it begins.

        Raises:
            TrainingError: one failed; the others that had begun were let finish.
        """
        if self.jobs == 1:
            for command in commands:
                print(command, flush=True)
                if self.programs[command.program](list(command.words)):
                    raise TrainingError(f"{command.program} failed; what it says stands above; {_GO_ON}")
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._run, command) for command in commands]
            try:
                for future in tqdm(as_completed(futures), total=len(futures), unit="command"):
                    future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _run(self, command: Command) -> None:
        tqdm.write(str(command))
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        log = self.logs / f"{command.name}.log"
        with log.open("w", encoding="utf-8") as file:
            words = [sys.executable, str(_ROOT / command.program), *command.words]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            status = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
        if status:
            with log.open(encoding="utf-8", errors="replace") as file:
                last = "".join(deque(file, _TOLD_LINES)).strip()
            raise TrainingError(f"{command.program} failed ({log}):\n{last}\n{_GO_ON}")


_GO_ON = "the same command goes on from there"


def default_jobs(has_gpu: bool) -> int:
    """One on a GPU, which commands would have to share; otherwise one a core, up to four for the memory they take."""
    return 1 if has_gpu else min(4, os.cpu_count() or 1)
