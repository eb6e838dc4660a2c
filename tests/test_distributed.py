"""Process groups of two on one machine: gathering, summing, and what is refused."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from gill.distributed import (
    World,
    any_process,
    barrier,
    choose_backend,
    gather_objects,
    gather_rows,
    join,
    leave,
    sum_counts,
    sum_gradients,
    world_from_environment,
)
from gill.errors import ConfigError, DistributedError

CPU = torch.device("cpu")


def _work(world: World, folder: Path, results: Any) -> None:
    """What each process does; the rows of the two together are 0 .. 7."""
    torch.set_num_threads(1)
    join(world, "gloo", f"file://{folder / 'meet'}")
    rows, first = gather_rows(torch.arange(4.0).view(2, 2).add(4 * world.rank).requires_grad_())
    weight = torch.nn.Parameter(torch.zeros(3))
    idle = torch.nn.Parameter(torch.zeros(2))
    if world.rank == 0:
        weight.grad = torch.ones(3)
        idle.grad = torch.ones(2)
    else:
        weight.grad = torch.full((3,), 2.0)
    sum_gradients([weight, idle])
    results.put(
        {
            "rank": world.rank,
            "rows": rows.flatten().tolist(),
            "first": first,
            "is_constant": not rows.requires_grad,
            "summed": [weight.grad.tolist(), idle.grad.tolist()],  # type: ignore[union-attr]
            "counts": sum_counts({"b": world.rank, "a": 1}, CPU),
            "objects": gather_objects(world.rank * 10),
            "any": [any_process(world.rank == 1, CPU), any_process(False, CPU)],
        }
    )
    leave()


@pytest.mark.slow
def test_two_processes_gather_sum_and_share_gradient(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_work, args=(World(rank, 2, rank), tmp_path, results)) for rank in (0, 1)]
    for process in processes:
        process.start()
    found = sorted((results.get(timeout=120) for _ in processes), key=lambda each: each["rank"])
    for process in processes:
        process.join()
    for rank, each in enumerate(found):
        assert each["rows"] == list(range(8))
        assert each["first"] == 2 * rank
        assert each["is_constant"], "a step differentiates with respect to its own rows alone"
        assert each["summed"] == [[3, 3, 3], [1, 1]]
        assert each["counts"] == {"a": 2, "b": 1}
        assert each["objects"] == [0, 10]
        assert each["any"] == [True, False]


def test_one_process_needs_no_group() -> None:
    rows, first = gather_rows(torch.ones(2, 3))
    assert rows.shape == (2, 3) and first == 0
    assert sum_counts({"a": 2.0}, CPU) == {"a": 2.0}
    assert gather_objects("x") == ["x"]


def test_a_process_that_is_gone_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.barrier", gone)
    with pytest.raises(DistributedError, match=r"Connection closed by peer.*if another process ended"):
        barrier()


def test_nccl_without_a_gpu_names_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_backend(None) == "gloo"
    with pytest.raises(ConfigError, match="use --dist-backend gloo"):
        choose_backend("nccl")
    with pytest.raises(ConfigError, match="known: gloo, nccl"):
        choose_backend("mpi")


def test_torchrun_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert world_from_environment() is None
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert world_from_environment() == World(3, 4, 1)
