"""The command line: the originals' flags, written with `-` or `_`, on top of a preset.

A flag that is not given leaves the preset alone. Flags set fields by name, so this file knows no family.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gill.config import Recipe, override, override_each, parse_assignments, require_known, to_dict
from gill.errors import ConfigError
from gill.models import find_preset_family
from gill.training.datasets import FLATLAND, DataSettings
from gill.training.settings import RunSettings
from gill.types import ModelSettings

DEFAULT_PRESET = "gill-opt-6.7b"
# Presets that train in the miniature world and need no data files: what they read, and how they are watched.
_IN_FLATLAND = DataSettings(FLATLAND, FLATLAND, contexts="mixed")
_MINIATURE = {
    "debug": DataSettings(FLATLAND, FLATLAND),
    "flatland": _IN_FLATLAND,
    "fromage-flatland": _IN_FLATLAND,
}
_WITH_DIFFUSION = ("flatland",)  # presets whose diffusion model comes with the repository, so it makes the targets
_RUNS = {"flatland": RunSettings(print_freq=1), "fromage-flatland": RunSettings(print_freq=1)}
_PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
# Targets of the diffusion model the originals stored them for, when none is loaded that would tell.
_STORED_LENGTH, _STORED_WIDTH = 77, 768

# flag names -> (field, type, help). Several names are several spellings of the originals.
_MODEL_FLAGS: dict[tuple[str, ...], tuple[str, type, str]] = {
    ("--opt-version",): ("language", str, "frozen language model: hub name or local folder"),
    ("--visual-model",): ("vision", str, "frozen CLIP: hub name, local folder or open_clip:ARCH/PRETRAINED"),
    ("--diffusion-model",): ("diffusion", str, "pipeline that draws and makes the targets; else they are stored"),
    ("--num-tokens",): ("num_img_tokens", int, "[IMG] tokens"),
    ("--n-visual-tokens",): ("num_visual_tokens", int, "visual tokens a picture"),
    ("--ret-emb-dim", "--shared-emb-dim"): ("retrieval_width", int, "width of the retrieval space"),
    ("--text-fc-mode",): ("mapper", str, "linear, mlp, transformer_encoder or gill_mapper"),
    ("--num-clip-tokens",): ("conditioning_length", int, "length of a conditioning target"),
    ("--gen-emb-dim",): ("conditioning_width", int, "width of a conditioning target"),
    ("--image-size",): ("image_size", int, "must be the vision tower's"),
    ("--cap-loss-scale",): ("captioning_weight", float, "weight of the captioning loss"),
    ("--image-embed-dropout-prob",): ("image_dropout", float, "dropout behind the visual prefix"),
    ("--text-embed-dropout-prob",): ("text_dropout", float, "dropout behind the text head"),
}
_RECIPE_FLAGS: dict[tuple[str, ...], tuple[str, type, str]] = {
    ("--epochs",): ("num_epochs", int, "epochs"),
    ("--steps-per-epoch",): ("steps_per_epoch", int, "optimiser steps an epoch"),
    ("-b", "--batch-size"): ("batch_size", int, "pairs an optimiser step, over all processes and micro-batches"),
    ("--lr", "--learning-rate"): ("learning_rate", float, "peak learning rate"),
    ("--lr-warmup-steps",): ("warmup_steps", int, "steps of linear warm-up"),
    ("--lr-schedule-step-size",): ("decay_epochs", int, "epochs between decays"),
    ("--lr-schedule-gamma",): ("decay_factor", float, "factor of each decay"),
    ("--grad-clip",): ("grad_clip", float, "largest gradient norm"),
    ("--wd", "--weight-decay"): ("weight_decay", float, "weight decay of what trains"),
    ("--concat-captions-prob",): ("pair_probability", float, "how often neighbours are read as one sequence"),
    ("--max-len",): ("max_tokens", int, "longest text in tokens, [IMG] tokens included"),
}
_RUN_FLAGS: dict[tuple[str, ...], tuple[str, type, str]] = {
    ("--seed",): ("seed", int, "seed of the run (default 0)"),
    ("--grad-accumulation-steps",): ("num_micro_batches", int, "micro-batches a step is cut into; same result"),
    ("-j", "--workers"): ("num_workers", int, "loader processes for each training process"),
    ("-p", "--print-freq"): ("print_freq", int, "a row of metrics.jsonl every so many steps"),
    ("--save-freq",): ("save_freq", int, "a checkpoint every so many steps"),
    ("--val-batch-size",): ("val_batch_size", int, "pairs of a validation batch"),
    ("--val-steps-per-epoch",): ("val_steps", int, "validation batches; -1 = the whole set"),
    ("--start-epoch",): ("start_epoch", int, "begin the schedule at this epoch"),
    ("--max-bad-fraction",): ("max_bad_fraction", float, "stop when a larger share of the samples is bad"),
    ("--input-prompt",): ("input_prompt", str, "what a described picture is prompted with in validation"),
}
_DATA_FLAGS: dict[tuple[str, ...], tuple[str, type, str]] = {
    ("-d", "--dataset"): (
        "train",
        str,
        "cc3m (NAME_train.tsv in --dataset-dir), a .tsv file, a folder of .tar shards, flatland",
    ),
    ("--val-dataset",): ("val", str, "the same for validation"),
    ("--dataset-dir",): ("dataset_dir", str, "folder of the caption files (default: datasets)"),
    ("--image-dir",): ("image_dir", str, "folder of the pictures (default: data)"),
    ("--image-features",): ("image_features", str, "store written by scripts/extract_img_features.py"),
    ("--contexts",): ("contexts", str, "flatland: mixed (captions, stories, dialogues) or none (the papers' recipe)"),
}


@dataclass(frozen=True)
class Launch:
    """Where and by how many processes a run is carried out; see the flags of the same names."""

    world_size: int
    rank: int
    dist_url: str | None
    dist_backend: str | None
    gpu: int | None
    is_spawned: bool
    processes_per_node: int | None


@dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
        family, preset: names. model: the family's settings.
        folder: run folder, LOG_BASE_DIR/EXP_NAME.
        resume: None = continue if there is a checkpoint; "" = there must be one; else a checkpoint folder.
    """

    family: str
    preset: str
    model: ModelSettings
    recipe: Recipe
    run: RunSettings
    data: DataSettings
    launch: Launch
    folder: str
    resume: str | None
    is_dry: bool
    is_evaluation: bool

    def to_json(self) -> dict[str, Any]:
        """What `config.json` holds."""
        parts = {"model": self.model, "recipe": self.recipe, "run": self.run, "data": self.data}
        return {"family": self.family, "preset": self.preset, **{name: to_dict(part) for name, part in parts.items()}}


def parse_command(words: Sequence[str]) -> Command:
    """Read a command line.

    Raises:
        ConfigError, UnknownNameError: flags, presets or values that cannot be; unknown ones name the nearest.
    """
    parser = _parser()
    given, unknown = parser.parse_known_args([_with_dashes(word) for word in words])
    for word in unknown:
        flag = word.partition("=")[0]
        require_known("flag", flag, parser._option_string_actions)
    preset_name = given.preset or DEFAULT_PRESET
    family = find_preset_family(preset_name)
    preset = family.presets[preset_name]
    _refuse_dead_flags(given)
    data = override(_MINIATURE.get(preset_name, DataSettings()), _given(given, _DATA_FLAGS))
    run = override(_RUNS.get(preset_name, RunSettings()), _given(given, _RUN_FLAGS))
    recipe = override(preset.recipe, _given(given, _RECIPE_FLAGS) | _betas(given, preset.recipe))
    model = override(preset.model, _given(given, _MODEL_FLAGS) | _loss_weights(given, preset.model))
    assignments = parse_assignments(given.set)
    model, recipe, run, data = override_each([model, recipe, run, data], assignments)
    is_named = given.diffusion_model is not None or "diffusion" in assignments or preset_name in _WITH_DIFFUSION
    if not is_named and data.train != FLATLAND:
        model = _with_stored_targets(model)
    return Command(
        family.name,
        preset_name,
        model,
        recipe,
        run,
        data,
        _launch(given),
        folder=f"{given.log_base_dir}/{given.exp_name or preset_name}",
        resume=given.resume,
        is_dry=given.dry_run,
        is_evaluation=given.evaluate,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="main.py", description="Train or validate a model.", allow_abbrev=False, exit_on_error=True
    )
    own = parser.add_argument_group("this project's own")
    own.add_argument("--preset", help=f"complete settings to start from (default: {DEFAULT_PRESET})")
    own.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="any other setting")
    own.add_argument("--dry-run", action="store_true", help="build everything, show it, write and train nothing")
    own.add_argument("--processes-per-node", type=int, help="with --multiprocessing-distributed (default: GPUs, or 2)")
    for title, flags in (
        ("model", _MODEL_FLAGS),
        ("recipe", _RECIPE_FLAGS),
        ("run", _RUN_FLAGS),
        ("data", _DATA_FLAGS),
    ):
        group = parser.add_argument_group(title)
        for names, (_, kind, text) in flags.items():
            group.add_argument(*names, type=kind, help=text)
    _add_special_flags(parser)
    return parser


def _add_special_flags(parser: argparse.ArgumentParser) -> None:
    """The originals' flags that do not set one field each."""
    add = parser.add_argument
    add("--log-base-dir", default="runs", help="run folders are made here")
    add("--exp-name", help="name of the run folder (default: the preset's)")
    add(
        "--resume",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="insist on continuing; FOLDER is where to start while this run has no checkpoint of its own",
    )
    add("-e", "--evaluate", action="store_true", help="validate only")
    add("--precision", choices=("fp32", "fp16", "bf16"), help="of the frozen parts; what trains is float32")
    add("--ret-loss-scale", type=float, help="weight of the retrieval losses")
    add("--gen-loss-scale", type=float, help="weight of the generation losses")
    add("--beta1", type=float, help="AdamW")
    add("--beta2", type=float, help="AdamW")
    add("--concat-for-ret", action="store_true", help="join neighbours in the text pass too")
    add("--ret-text-fc-mode", choices=("linear",), help="the retrieval head is linear")
    add("--text-emb-layers", choices=("-1",), help="the last layer is read")
    add("--use-image-embed-norm", action="store_true", help=argparse.SUPPRESS)
    add("--use-text-embed-layernorm", action="store_true", help=argparse.SUPPRESS)
    add("--world-size", type=int, default=-1, help="number of machines")
    add("--rank", type=int, default=-1, help="number of this machine")
    add("--dist-url", help="where processes meet, tcp://HOST:PORT (default: a free port of this machine)")
    add("--dist-backend", help="gloo or nccl (default: what this machine has)")
    add("--gpu", type=int, help="the one GPU to use")
    add("--multiprocessing-distributed", action="store_true", help="start the processes of this machine")


def _with_dashes(word: str) -> str:
    """`--steps_per_epoch=2` -> `--steps-per-epoch=2`; values stay as they are."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


def _given(given: argparse.Namespace, flags: dict[tuple[str, ...], tuple[str, type, str]]) -> dict[str, Any]:
    values = {}
    for names, (field, _, _) in flags.items():
        long = next(name for name in names if name.startswith("--"))
        value = getattr(given, long[2:].replace("-", "_"))
        if value is not None:
            values[field] = value
    return values


def _betas(given: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    if given.beta1 is None and given.beta2 is None:
        return {}
    asked = (given.beta1, given.beta2)
    return {"betas": tuple(old if new is None else new for new, old in zip(asked, recipe.betas, strict=True))}


def _loss_weights(given: argparse.Namespace, model: Any) -> dict[str, Any]:
    """The originals' scales also weigh the next-token losses of their text passes, which are one pass here."""
    values: dict[str, Any] = {"joins_text": True} if given.concat_for_ret else {}
    if given.precision == "fp16":
        raise ConfigError("--precision fp16 never worked in the original and is not offered; use bf16 or fp32")
    if given.precision is not None:
        values["frozen_dtype"] = _PRECISIONS[given.precision]
    if given.gen_loss_scale is not None and not model.has_mapper:
        raise ConfigError("--gen-loss-scale is for a model that draws; leave it out with this preset")
    if given.ret_loss_scale is None and given.gen_loss_scale is None:
        return values
    retrieval = 1.0 if given.ret_loss_scale is None else given.ret_loss_scale
    generation = 1.0 if given.gen_loss_scale is None else given.gen_loss_scale
    values["contrastive_weight"] = values["text_weight"] = retrieval
    if model.has_mapper:
        values |= {"text_weight": (retrieval + generation) / 2, "conditioning_weight": generation}
    return values


def _refuse_dead_flags(given: argparse.Namespace) -> None:
    for name in ("use_image_embed_norm", "use_text_embed_layernorm"):
        if getattr(given, name):
            raise ConfigError(f"--{name.replace('_', '-')} did nothing in the original; leave it out")


def _with_stored_targets(model: Any) -> Any:
    """No diffusion model was named: targets are stored, in sizes of flags or the original's, and the preset's draws."""
    sizes = {
        "conditioning_length": model.conditioning_length or _STORED_LENGTH,
        "conditioning_width": model.conditioning_width or _STORED_WIDTH,
    }
    return override(model, {"stores_targets": True, **sizes}) if model.has_mapper else model


def _launch(given: argparse.Namespace) -> Launch:
    if given.processes_per_node is not None and given.processes_per_node < 1:
        raise ConfigError(f"--processes-per-node must be at least 1, got {given.processes_per_node}")
    return Launch(
        world_size=max(given.world_size, 1),
        rank=max(given.rank, 0),
        dist_url=given.dist_url,
        dist_backend=given.dist_backend,
        gpu=given.gpu,
        is_spawned=given.multiprocessing_distributed,
        processes_per_node=given.processes_per_node,
    )
