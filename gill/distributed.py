"""Processes that train together: who is who, sums over all, and what all hold.

Everything works unchanged with one process and without a process group.

Shape legend: B = rows of this process, N = rows of all, E = width.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from gill.errors import ConfigError, DistributedError

Answer = TypeVar("Answer")
BACKENDS = ("gloo", "nccl")
_TIMEOUT = datetime.timedelta(minutes=30)  # the first process alone draws pictures and exports, which may take a while


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`; `local_rank` counts on this machine and picks the GPU."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0


def world_from_environment() -> World | None:
    """What torchrun says of this process; None when it was not started by it."""
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return None
    return World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0")))


def choose_backend(asked: str | None) -> str:
    """The backend that was asked for, or the one that fits this machine.

    Raises:
        ConfigError: unknown, or nccl without a GPU.
    """
    if asked is None:
        return "nccl" if torch.cuda.is_available() else "gloo"
    if asked not in BACKENDS:
        raise ConfigError(f"unknown --dist-backend {asked!r}; known: {', '.join(BACKENDS)}")
    if asked == "nccl" and not torch.cuda.is_available():
        raise ConfigError("--dist-backend nccl needs a GPU and there is none; use --dist-backend gloo on a CPU")
    return asked


def join(world: World, backend: str, init_method: str) -> None:
    """Form the process group.

    Args:
        init_method: "env://", "tcp://host:port" or "file:///path".

    Raises:
        DistributedError: the others cannot be reached.
    """
    try:
        dist.init_process_group(
            backend, init_method=init_method, rank=world.rank, world_size=world.size, timeout=_TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        raise DistributedError(
            f"process {world.rank} of {world.size} cannot join {init_method}: {error}; choose a free port or path"
        ) from error


def leave() -> None:
    """Take the process group down, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def gather_rows(own_BE: Tensor) -> tuple[Tensor, int]:
    """Rows of all processes in rank order, without gradient, and the row where ours start.

    Args:
        own_BE: float[B, E], equally many on every process.

    Returns:
        (float[N, E], first own row).
    """
    if not dist.is_initialized():
        return own_BE, 0
    parts = [torch.empty_like(own_BE) for _ in range(dist.get_world_size())]
    with _together():
        dist.all_gather(parts, own_BE.detach().contiguous())
    return torch.cat(parts), dist.get_rank() * len(own_BE)


def sum_counts(counts: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Each number summed over all processes, which must agree on the names; float64, so counts stay exact."""
    names = sorted(counts)
    values = torch.tensor([counts[name] for name in names], dtype=torch.float64, device=device)
    if dist.is_initialized():
        with _together():
            dist.all_reduce(values)
    return dict(zip(names, values.tolist(), strict=True))


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes; one that took no part counts as zero."""
    if not dist.is_initialized():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    with _together():
        dist.all_reduce(flat)
    start = 0
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.copy_(flat[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


def broadcast_parameters(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the weights of the first, so that all start alike."""
    if dist.is_initialized():
        with _together():
            for parameter in parameters:
                dist.broadcast(parameter.data, 0)


def gather_objects(own: Any) -> list[Any]:
    """What each process holds, in rank order, on every process."""
    if not dist.is_initialized():
        return [own]
    everyone: list[Any] = [None] * dist.get_world_size()
    with _together():
        dist.all_gather_object(everyone, own)
    return everyone


def ask_main(ask: Callable[[], Answer]) -> Answer:
    """What the first process answers, on every process; the others do not ask."""
    is_asking = not dist.is_initialized() or dist.get_rank() == 0
    answer: Answer = gather_objects(ask() if is_asking else None)[0]
    return answer


def shard_layers(network: nn.Module, layers: nn.ModuleList, device: torch.device) -> None:
    """Leave every process a share of each layer's weights, put together when the layer runs (FSDP2).

    Layers move to `device` one after the other, so that a model which does not fit it can be built on the host. From
    then on all processes must run the layers equally often.

    Args:
        network: somewhere in it are the layers; its other weights stay whole.

    Raises:
        ConfigError: there is one process only.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        raise ConfigError("shard_language needs several processes; start them with torchrun, or leave it out")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    # The module that runs the layers lets them share streams: one is gathered while the one before it computes.
    stack = next(module for module in network.modules() if any(child is layers for child in module.children()))
    fully_shard(stack, mesh=mesh, ignored_params=set(stack.parameters()) - set(layers.parameters()))


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether the flag is up on at least one process."""
    return sum_counts({"flag": float(flag)}, device)["flag"] > 0


def barrier() -> None:
    """Wait for the others."""
    if dist.is_initialized():
        with _together():
            dist.barrier()


@contextmanager
def _together() -> Iterator[None]:
    """Say plainly when another process is gone.

    Raises:
        DistributedError: it is; torch raises its plain RuntimeError for that.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DistributedError(
            f"processes cannot talk to each other ({reason}); if another process ended, its own message says why"
        ) from error
