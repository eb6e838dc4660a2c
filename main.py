"""Train or validate a model: parse, build, fit.

    python main.py --preset debug                      # random tiny parts, no files, seconds
    python main.py --preset flatland                   # the miniature world, minutes on a CPU
    python main.py --dataset=cc3m --val-dataset=cc3m --exp-name=gill_exp --image-dir=data/ --precision=bf16

The same command again continues the run in LOG_BASE_DIR/EXP_NAME. The batch size is the global one, whether started
alone, by torchrun or with --multiprocessing-distributed.
"""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader workers are forked after its first use
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import json
import logging
import multiprocessing
import signal
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import torch

from gill.data import Share
from gill.distributed import World, barrier, choose_backend, join, leave, shard_layers, world_from_environment
from gill.errors import ConfigError, GillError, MissingCheckpointError
from gill.models import find_family
from gill.parameters import parameter_table
from gill.training import (
    Command,
    Job,
    Launch,
    Outcome,
    claim_folder,
    describe_environment,
    evaluate,
    fit,
    newest_checkpoint,
    open_source,
    parameter_text,
    parse_command,
    preview,
)

REPOSITORY = Path(__file__).resolve().parent
STOPPED_STATUS, ERROR_STATUS = 143, 2  # as a process that SIGTERM ended; as argparse


def main(words: list[str]) -> int:
    """Carry out a command line; returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="main.py: %(message)s")
    try:
        command = parse_command(words)
        torchrun = world_from_environment()
        if torchrun is None and command.launch.is_spawned:
            return _spawn(command, words)
        return _run(command, torchrun or World(command.launch.rank, command.launch.world_size))
    except (GillError, OSError) as error:
        print(f"main.py: {_told(error)}", file=sys.stderr)
        return ERROR_STATUS


def _told(error: GillError | OSError) -> str:
    """What is printed of an error; the system's own ones say where and why, but not what to do."""
    if isinstance(error, GillError):
        return str(error)
    return f"{error}; look at the folder's rights and its free space, then give the same command again"


def _run(command: Command, world: World, init_method: str | None = None) -> int:
    """One process of a run."""
    if not world.is_main:
        logging.getLogger().setLevel(logging.ERROR)  # the first process speaks for all
    if world.size > 1:
        method = init_method or command.launch.dist_url or "env://"
        join(world, choose_backend(command.launch.dist_backend), method)
    try:
        job = _build(command, world)
        if command.is_dry:
            _say(world, f"{json.dumps(command.to_json(), indent=2)}\n{preview(job)}")
            return 0
        if command.is_evaluation:
            _say(world, json.dumps({f"val/{name}": score for name, score in evaluate(job).items()}))
            return 0
        return _train(command, job)
    finally:
        leave()


def _train(command: Command, job: Job) -> int:
    if job.world.is_main:
        claim_folder(job.folder, command.to_json())
        describe_environment(job.folder, [sys.executable, *sys.argv], REPOSITORY)
        (job.folder / "parameters.txt").write_text(parameter_text(parameter_table(job.task)), encoding="utf-8")
    barrier()
    outcome = fit(job)
    _say(
        job.world,
        f"{job.folder}: "
        + {
            Outcome.FINISHED: "finished",
            Outcome.STOPPED: "stopped and saved; the same command continues",
            Outcome.NOTHING_LEFT: "is finished already; choose another --exp-name",
        }[outcome],
    )
    return STOPPED_STATUS if outcome is Outcome.STOPPED else 0


def _build(command: Command, world: World) -> Job:
    """Everything a run needs; nothing is written."""
    device = _device(command.launch, world)
    Share(world.rank, world.size, command.run.num_micro_batches).check(
        command.recipe.batch_size, command.recipe.pair_probability > 0
    )
    model, recipe, run = command.model, command.recipe, command.run
    train, val = (
        open_source(command.data, split, run.seed, model.vision, model.stored_target_shape)
        for split in ("train", "val")
    )
    family, folder = find_family(command.family), Path(command.folder)
    # A language model that is to be sharded need not fit the device whole.
    task, encoder = family.build(model, "cpu" if run.shard_language else device, recipe.max_tokens, run.seed)
    if run.shard_language:
        shard_layers(task, task.frozen_layers(), device)
        task.to(device)
    illustrator = family.illustrator(
        task, encoder, run.input_prompt, recipe.max_tokens, run.num_inference_steps, run.guidance_scale
    )
    resume_from = _resume_from(command, folder)
    return Job(family, task, encoder, train, val, recipe, run, folder, world, device, resume_from, illustrator)


def _device(launch: Launch, world: World) -> torch.device:
    if not torch.cuda.is_available():
        if launch.gpu is not None:
            raise ConfigError(f"--gpu {launch.gpu}: there is no GPU; leave the flag out to use the CPU")
        return torch.device("cpu")
    if launch.gpu is not None and (launch.is_spawned or int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1):
        raise ConfigError(f"--gpu {launch.gpu} is for one process a machine, here are more; leave the flag out")
    number = world.local_rank if launch.gpu is None else launch.gpu
    if number >= torch.cuda.device_count():
        raise ConfigError(f"there is no GPU {number}; this machine has {torch.cuda.device_count()}")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _resume_from(command: Command, folder: Path) -> Path | None:
    """The checkpoint that --resume names.

    Raises:
        MissingCheckpointError: --resume was given and there is nothing to resume.
    """
    if command.resume is None:
        return None
    named = Path(command.resume) if command.resume else folder
    checkpoint = newest_checkpoint(named) or named
    if not (checkpoint / "state.json").is_file():
        raise MissingCheckpointError(f"--resume: {named} holds no checkpoint; leave the flag out to start a new run")
    return checkpoint


def _spawn(command: Command, words: list[str]) -> int:
    """Start this machine's processes, pass signals on, and end all of them when one fails."""
    count = command.launch.processes_per_node or torch.cuda.device_count() or 2
    choose_backend(command.launch.dist_backend)  # say what is wrong once, not in every process
    url = command.launch.dist_url or f"tcp://127.0.0.1:{_free_port()}"
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    for local in range(count):
        world = World(command.launch.rank * count + local, command.launch.world_size * count, local)
        processes.append(context.Process(target=_child, args=(words, world, url)))
        processes[-1].start()

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    return _wait(processes)


def _wait(processes: list[BaseProcess]) -> int:
    """The first status that is not 0, once all have ended."""
    status = 0
    while any(process.is_alive() for process in processes):
        for process in processes:
            process.join(timeout=0.2)
            if process.exitcode and not status:
                status = process.exitcode
                if status != STOPPED_STATUS:  # a stopping process has told the others itself
                    for other in processes:
                        other.kill()
    return status or next((process.exitcode for process in processes if process.exitcode), 0)


def _child(words: list[str], world: World, url: str) -> None:
    logging.basicConfig(level=logging.WARNING, format="main.py: %(message)s")
    if "OMP_NUM_THREADS" not in os.environ and not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world.size))
    try:
        sys.exit(_run(parse_command(words), world, url))
    except (GillError, OSError) as error:
        print(f"main.py: process {world.rank}: {_told(error)}", file=sys.stderr)
        sys.exit(ERROR_STATUS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _say(world: World, text: str) -> None:
    if world.is_main:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
