"""Process groups on this machine: a function run by several processes that meet in a file.

The processes are forked from a server that has imported everything once, so a group costs a fraction of a second
instead of the imports of each process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gill.distributed import World, join, leave

SECONDS = 240  # a group that takes longer hangs
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["gill.models.gill", "gill.training", "tests.groups"])


def run_group(size: int, work: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """What `work(world, *arguments)` returns on each of `size` gloo processes, in rank order; tensors may be in it.

    Args:
        folder: empty; the processes meet and leave their results there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    processes = [
        CONTEXT.Process(target=_member, args=(World(r, size, r), work, folder, arguments)) for r in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    for process in processes:
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in processes] == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def _member(world: World, work: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if world.size > 1:
        join(world, "gloo", f"file://{folder / 'meet'}")
    torch.save(work(world, *arguments), folder / f"{world.rank}.pt")
    leave()
