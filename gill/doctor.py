"""Check an installation, in less than a minute and without any file: `python -m gill.doctor`.

Versions, the [IMG] tokens, a training of two steps whose losses must be the stored ones while nothing frozen moves, the
process groups of this machine, and its GPUs. With a model's name or folder, its tokenizer is checked too:

    python -m gill.doctor --language facebook/opt-6.7b
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.distributed as dist

from gill.backbones import load_language_tokenizer, tiny_tokenizer
from gill.data import BatchOrder, FlatlandSource, Share, training_steps
from gill.errors import ConfigError, GillError, TrainingError
from gill.models import find_family
from gill.parameters import frozen_checksums
from gill.training import build_optimizer, forward_backward, update

# Lowest versions that are tested (requirements.txt); torch and torchvision exactly.
NEEDED: Mapping[str, str] = {
    "torch": "2.13.0",
    "torchvision": "0.28.0",
    "transformers": "5.23",
    "tokenizers": "0.23.1",
    "diffusers": "0.42.1",
    "safetensors": "0.8",
    "numpy": "2.4",
    "pillow": "12",
}
_EXACT = ("torch", "torchvision")
# Losses of the two steps below on a CPU in float64; any other loss is another computation.
STORED_LOSSES = (17.82945019708061, 18.20286324562128)
_TOLERANCE = 1e-6  # relative; kernels differ in the order of their sums


def main(words: Sequence[str] | None = None) -> int:
    """Print one line a check; returns 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m gill.doctor", description=__doc__.partition("\n")[0])
    parser.add_argument("--language", default="", help="check this language model's tokenizer too: hub name or folder")
    language = parser.parse_args(words).language
    checks: dict[str, Callable[[], str]] = {
        "versions": check_versions,
        "[IMG] tokens": lambda: check_img_tokens(language),
        "training": check_training,
        "processes": check_processes,
        "GPU": check_gpus,
    }
    return max([_told(name, check) for name, check in checks.items()])


def _told(name: str, check: Callable[[], str]) -> int:
    try:
        is_failed, text = 0, check()
    except GillError as error:
        is_failed, text = 1, str(error)
    sys.stdout.write(f"{'FAIL' if is_failed else 'ok':5}{name:14}{text}\n")
    return is_failed


def check_versions() -> str:
    """Every library is there, new enough, and torch the one that is tested.

    Raises:
        ConfigError: one is not.
    """
    found = {name: _version(name) for name in NEEDED}
    wrong = [
        f"{name} {found[name] or 'missing'}, wanted {wanted}"
        for name, wanted in NEEDED.items()
        if not _fits(name, found)
    ]
    if wrong:
        raise ConfigError(f"{'; '.join(wrong)}: pip install -r requirements.txt")
    return f"Python {platform.python_version()}, " + ", ".join(f"{name} {version}" for name, version in found.items())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _fits(name: str, found: Mapping[str, str]) -> bool:
    version = found[name].partition("+")[0]  # torch says after a plus what it was built for
    if not version:
        return False
    return version == NEEDED[name] if name in _EXACT else _numbers(version) >= _numbers(NEEDED[name])


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def check_img_tokens(language: str = "") -> str:
    """Each [IMG] token is one id of its own, wherever it stands.

    Raises:
        ConfigError: one is split, or known already.
    """
    names = [f"[IMG{number}]" for number in range(8)]
    tokenizer = load_language_tokenizer(language) if language else tiny_tokenizer()
    known = len(tokenizer)
    tokenizer.add_tokens(names)
    wanted = list(range(known, known + len(names)))
    for text in ("".join(names), " ".join(names), "a cat" + ".".join(names) + "s"):
        found = [number for number in tokenizer(text, add_special_tokens=False)["input_ids"] if number >= known]
        if found != wanted:
            raise ConfigError(f"{text!r} has the ids {found}, wanted {wanted}; choose another img_token_name")
    return f"{len(names)} tokens, ids {wanted[0]} to {wanted[-1]} of {language or 'the tiny tokenizer'}"


def check_training() -> str:
    """Two steps of the debug preset on the CPU give the stored losses, and leave what is frozen alone.

    Raises:
        TrainingError: as `check_steps`.
    """
    return check_steps(torch.device("cpu"))


def check_steps(device: torch.device) -> str:
    """Two steps of the debug preset give the stored losses, and leave what is frozen alone.

    Raises:
        TrainingError: other losses, or frozen weights that moved.
    """
    losses, is_moved = train_two_steps(device)
    if any(abs(loss - stored) > _TOLERANCE * stored for loss, stored in zip(losses, STORED_LOSSES, strict=True)):
        raise TrainingError(f"the losses are {losses}, wanted {STORED_LOSSES}; look at the versions above")
    if is_moved:
        raise TrainingError("a training step has changed frozen weights")
    return f"losses {losses[0]:.6f} and {losses[1]:.6f} as stored, frozen weights unmoved"


def train_two_steps(device: torch.device) -> tuple[list[float], bool]:
    """(losses, whether anything frozen moved) of the debug preset in float64."""
    family = find_family("gill")
    preset = family.presets["debug"]
    recipe = replace(preset.recipe, batch_size=8, warmup_steps=0)
    task, encoder = family.build(replace(preset.model, frozen_dtype="float64"), device, recipe.max_tokens, 0)
    before, optimizer, losses = frozen_checksums(task), build_optimizer(task, recipe), []
    source, order = FlatlandSource("train", 100, 0, "none"), BatchOrder(100, recipe.batch_size, 0)
    for part in training_steps(source, encoder, order, Share(), range(2), recipe.pair_probability):
        values = forward_backward(task, part.batches, Share(), recipe.batch_size, device)
        losses.append(values["loss"])
        update(task, optimizer, recipe, part.step, values)
    return losses, frozen_checksums(task) != before


def check_processes() -> str:
    """The backends that this torch can form process groups with.

    Raises:
        ConfigError: not even gloo.
    """
    if not dist.is_available() or not dist.is_gloo_available():
        raise ConfigError("this torch has no gloo; only one process can train. Install torch from the package index")
    return "gloo" + (", nccl" if dist.is_nccl_available() else ", no nccl")


def check_gpus() -> str:
    """Each GPU multiplies two matrices, in bfloat16 as frozen parts do, and the first one trains as the CPU does.

    Raises:
        ConfigError: there is one, and it cannot. TrainingError: as `check_steps`.
    """
    if not torch.cuda.is_available():
        return "none; everything runs on the CPU"
    if not dist.is_nccl_available():
        raise ConfigError("there is a GPU and torch has no nccl; install a CUDA build of torch")
    names = []
    for number in range(torch.cuda.device_count()):
        ones = torch.ones(256, 256, dtype=torch.bfloat16, device=f"cuda:{number}")
        if (ones @ ones).ne(256).any():
            raise ConfigError(f"GPU {number} multiplies wrongly; look at its driver")
        names.append(f"{torch.cuda.get_device_name(number)}, {torch.cuda.mem_get_info(number)[0] / 2**30:.0f} GiB free")
    return f"{'; '.join(names)}; on the first one {check_steps(torch.device('cuda', 0))}"


if __name__ == "__main__":
    sys.exit(main())
