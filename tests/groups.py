"""Process groups on this machine: a function, or `main.py`, run by several processes.

The processes are forked from a server that has imported everything once, so a group costs a fraction of a second
instead of the imports of each process.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from gill.distributed import World, join, leave
from main import main

SECONDS = 240  # a group that takes longer hangs
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["gill.models.gill", "gill.training", "tests.groups"])


def run_group(size: int, work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """What `work(world, *arguments)` returns on each of `size` gloo processes, in rank order; tensors may be in it.

    Args:
        folder: empty; the processes meet and leave their results there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    statuses = _finish(
        [CONTEXT.Process(target=_member, args=(World(r, size, r), work, folder, arguments)) for r in range(size)]
    )
    assert statuses == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def run_main(
    size: int, words: Sequence[str], log: Path, prepare: Callable[[], None] | None = None
) -> tuple[list[int], str]:
    """Exit statuses of `main.py`'s processes as torchrun starts them, and what they printed.

    Args:
        log: file the output goes to. prepare: done first in each process; a function of a module.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log.unlink(missing_ok=True)
    statuses = _finish(
        [CONTEXT.Process(target=_main, args=(World(r, size, r), port, words, log, prepare)) for r in range(size)]
    )
    return statuses, log.read_text()


def _finish(processes: Sequence[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _member(world: World, work: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if world.size > 1:
        join(world, "gloo", f"file://{folder / 'meet'}")
    torch.save(work(world, *arguments), folder / f"{world.rank}.pt")
    leave()


def _main(world: World, port: int, words: Sequence[str], log: Path, prepare: Callable[[], None] | None) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    if world.size > 1:
        own = {"RANK": world.rank, "WORLD_SIZE": world.size, "LOCAL_RANK": world.local_rank}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in {**own, **meeting}.items()}
    if prepare is not None:
        prepare()
    sys.exit(main(list(words)))
