"""Read and write the files the originals released, without executing anything in them.

`pretrained_ckpt.pth.tar` (or a training `ckpt.pth.tar`) beside `model_args.json`, of GILL or of FROMAGe, and
`decision_model.pth.tar`. Tensors are read by `torch.load(weights_only=True)`, on the CPU whatever device they were
saved on; besides tensors and plain containers only `argparse.Namespace`, which holds plain values, may occur, and a
training checkpoint's optimiser, which is not read.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gill.errors import CheckpointError, MissingCheckpointError
from gill.mappers import DecisionHead
from gill.models.gill.config import GillConfig, find_preset
from gill.models.gill.whitening import with_plain_map

WEIGHTS_NAME, ARGS_NAME, DECISION_NAME = "pretrained_ckpt.pth.tar", "model_args.json", "decision_model.pth.tar"

# our name or prefix -> theirs; the first match counts
_GILL_NAMES = {
    "logit_scale": "model.logit_scale",
    "img_tokens.input_rows": "model.input_embeddings.weight",
    "visual_prefix.linear.": "model.visual_embeddings.",
    "retrieval_heads.image.": "model.visual_fc.",
    "retrieval_heads.text.": "model.ret_text_hidden_fcs.0.model.",
    "mapper.input.": "model.gen_text_hidden_fcs.0.fc.",
    "mapper.transformer.": "model.gen_text_hidden_fcs.0.tfm.",
    "mapper.queries": "model.gen_text_hidden_fcs.0.query_embs",
    "mapper.output.": "model.gen_text_hidden_fcs.0.model.",
}
_FROMAGE_NAMES = {
    **{ours: theirs for ours, theirs in _GILL_NAMES.items() if not ours.startswith("mapper.")},
    "img_tokens.input_rows": "ret_input_embeddings.weight",
    "retrieval_heads.text.": "model.text_hidden_fcs.0.0.",
}
# what torch's restricted unpickler raises for forbidden or malformed content
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    AssertionError,
    TypeError,
    struct.error,
)
_FROZEN_PREFIXES = ("model.lm.", "model.visual_model.")  # left in by unpruned checkpoints


class _LeftOut:
    """Stands in for what a training checkpoint holds beside its weights: nothing of it is kept."""

    def __setstate__(self, state: object) -> None:
        """Forget what was saved."""


# The originals pickled their schedule, and with it the optimiser, into every training checkpoint.
_LEFT_OUT = [(_LeftOut, f"torch.optim.{name}") for name in ("lr_scheduler.StepLR", "adamw.AdamW")]
_HARMLESS: list[Any] = [argparse.Namespace, collections.defaultdict, dict, *_LEFT_OUT]


def config_from_args(args: Mapping[str, Any]) -> GillConfig:
    """Settings from a `model_args.json`.

    Raises:
        CheckpointError: an argument is missing.
    """
    try:
        if is_fromage(args):
            return dataclasses.replace(
                find_preset("fromage").model,
                language=args["opt_version"],
                vision=args["visual_encoder"],
                num_visual_tokens=args["n_visual_tokens"],
                retrieval_width=args["shared_emb_dim"],
                text_dropout=args["text_embed_dropout_prob"],
                image_dropout=args["image_embed_dropout_prob"],
            )
        return dataclasses.replace(
            find_preset("gill-opt-6.7b").model,
            language=args["opt_version"],
            vision=args["visual_encoder"],
            num_img_tokens=args["num_tokens"],
            num_visual_tokens=args["n_visual_tokens"],
            retrieval_width=args["ret_emb_dim"],
            mapper=args["text_fc_mode"],
            conditioning_length=args["num_clip_tokens"],
            conditioning_width=args["gen_emb_dim"],
        )
    except KeyError as error:
        raise CheckpointError(f"{ARGS_NAME} lacks {error}; it is not of a released GILL or FROMAGe") from error


def args_from_config(config: GillConfig, first_img_id: int) -> dict[str, Any]:
    """A `model_args.json` for the originals' loaders.

    Args:
        first_img_id: id of [IMG0] or [RET].
    """
    shared = {"opt_version": config.language, "freeze_lm": True, "visual_encoder": config.vision, "freeze_vm": True}
    shared = {**shared, "n_visual_tokens": config.num_visual_tokens, "text_emb_layers": [-1]}
    if not config.has_mapper:
        return {
            **shared,
            "shared_emb_dim": config.retrieval_width,
            "use_image_embed_norm": False,
            "use_text_embed_layernorm": False,
            "image_embed_dropout_prob": config.image_dropout,
            "text_embed_dropout_prob": config.text_dropout,
            "retrieval_token_idx": first_img_id,
        }
    ids = list(range(first_img_id, first_img_id + config.num_img_tokens))
    return {
        **shared,
        "ret_emb_dim": config.retrieval_width,
        "gen_emb_dim": config.conditioning_width,
        "text_fc_mode": config.mapper,
        "ret_text_fc_mode": "linear",
        "num_tokens": config.num_img_tokens,
        "num_clip_tokens": config.conditioning_length,
        "share_ret_gen": True,
        "norm_image_embed": "none",
        "retrieval_token_idx": ids,
        "gen_token_idx": ids,
    }


def is_fromage(args: Mapping[str, Any]) -> bool:
    """Whether a `model_args.json` is of FROMAGe."""
    return "shared_emb_dim" in args


def import_state(released: Mapping[str, Tensor], config: GillConfig) -> dict[str, Tensor]:
    """Released names to ours; frozen leftovers are dropped, of a full embedding table the last R rows are kept.

    Raises:
        CheckpointError: a name that belongs to neither release, or too few [IMG] rows.
    """
    names = {theirs: ours for ours, theirs in _names(config).items()}
    stripped = {name.removeprefix("module."): tensor for name, tensor in released.items()}
    if "ret_input_embeddings.weight" in stripped:
        stripped.pop("model.input_embeddings.weight", None)  # FROMAGe's pruning left the whole table in
    elif not config.has_mapper and "model.input_embeddings.weight" in stripped:
        stripped["ret_input_embeddings.weight"] = stripped.pop("model.input_embeddings.weight")
    kept = {name: tensor for name, tensor in stripped.items() if not name.startswith(_FROZEN_PREFIXES)}
    state = {_renamed(name, names): tensor.float() for name, tensor in kept.items()}
    rows = state.get("img_tokens.input_rows")
    if rows is not None and len(rows) < config.num_img_tokens:
        wanted = config.num_img_tokens
        raise CheckpointError(
            f"the file has {len(rows)} [IMG] rows, the model has {wanted}; set num_img_tokens={len(rows)}"
        )
    if rows is not None:
        state["img_tokens.input_rows"] = rows[-config.num_img_tokens :].clone()
    return state


def fit_mapper(config: GillConfig, state: Mapping[str, Tensor]) -> GillConfig:
    """The settings with the sizes of a GILLMapper's weights; `model_args.json` does not say its width and depth."""
    weight = state.get("mapper.input.weight")
    if weight is None or config.mapper != "gill_mapper":
        return config
    depth = sum(name.startswith("mapper.transformer.encoder.") and name.endswith(".linear1.weight") for name in state)
    return dataclasses.replace(
        config,
        mapper_width=len(weight),
        mapper_layers=depth,
        conditioning_length=state["mapper.queries"].shape[1],
        conditioning_width=len(state["mapper.output.weight"]),
    )


def export_state(state: Mapping[str, Tensor], config: GillConfig) -> dict[str, Tensor]:
    """Our names to the released ones.

    Raises:
        CheckpointError: a part the originals have no name for, such as the rows of an untied head.
    """
    return {_renamed(name, _names(config)): tensor for name, tensor in state.items()}


def read_released(folder: Path, weights_name: str = WEIGHTS_NAME) -> tuple[GillConfig, dict[str, Tensor]]:
    """Settings and weights, in our names, of a released model folder.

    Args:
        weights_name: another file of the folder, such as a training `ckpt_best.pth.tar`.

    Raises:
        MissingCheckpointError: a file is not there; CheckpointError: it cannot be read safely, or is something else.
    """
    args_path = folder / ARGS_NAME
    if not args_path.is_file():
        raise MissingCheckpointError(f"{args_path} is missing; put the released {ARGS_NAME} and {WEIGHTS_NAME} there")
    config = config_from_args(read_json(args_path))
    state = import_state(_state_dict(folder / weights_name), config)
    return fit_mapper(config, state), state


def read_num_words(folder: Path) -> int:
    """Words before the first [IMG] token of a released model folder: that token's id.

    Raises:
        CheckpointError: `model_args.json` does not say it.
    """
    first = read_json(folder / ARGS_NAME).get("retrieval_token_idx")
    first = first[0] if isinstance(first, list) and first else first
    if not isinstance(first, int):
        raise CheckpointError(f"{folder / ARGS_NAME} lacks retrieval_token_idx, the ids of the [IMG] tokens")
    return first


def write_released(folder: Path, config: GillConfig, state: Mapping[str, Tensor], first_img_id: int) -> None:
    """Write `pretrained_ckpt.pth.tar` and `model_args.json` as the originals read them, bfloat16 weights.

    Args:
        config: with conditioning_length and conditioning_width set, unless it does not draw.
        state: what trains, in our names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = with_plain_map(state, config.whitening) if config.whitening else state
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in export_state(state, config).items()}
    torch.save({"state_dict": weights}, folder / WEIGHTS_NAME)
    text = json.dumps(args_from_config(config, first_img_id), indent=4)
    (folder / ARGS_NAME).write_text(text + "\n", encoding="utf-8")


def read_decision(path: Path) -> DecisionHead:
    """The decision head of a released `decision_model.pth.tar`.

    Raises:
        MissingCheckpointError, CheckpointError: as `read_released`.
    """
    state = _state_dict(path)
    if set(state) != {"1.weight", "1.bias"}:
        raise CheckpointError(f"{path} is no decision model: it holds {sorted(state)}, wanted 1.weight and 1.bias")
    head = DecisionHead(state["1.weight"].shape[1])
    head.linear.load_state_dict({"weight": state["1.weight"].float(), "bias": state["1.bias"].float()})
    return head.eval()


def write_decision(path: Path, head: DecisionHead) -> None:
    """Write a decision head as the originals read it."""
    state = {f"1.{name}": tensor.detach().cpu() for name, tensor in head.linear.state_dict().items()}
    torch.save({"state_dict": state}, path)


def read_json(path: Path) -> dict[str, Any]:
    """The settings in a JSON file.

    Raises:
        CheckpointError: it holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or no text
        raise CheckpointError(f"{path} is not JSON ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no settings but {type(content).__name__}; it is of something else")
    return content


def load_tensors_only(path: Path) -> Any:
    """Read a `torch.save` file that holds tensors and plain values; nothing in it is executed.

    Raises:
        MissingCheckpointError: it is not there; CheckpointError: it is damaged, or would run code.
    """
    if not path.is_file():
        raise MissingCheckpointError(f"{path} is missing")
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols: what cannot be read is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        # torch wraps the reason in advice to load the file without care
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].partition(". Please")[0] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read without executing code in it, or is damaged: {reason.splitlines()[0]}"
        ) from error


def _state_dict(path: Path) -> dict[str, Tensor]:
    content = load_tensors_only(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} has no state_dict of tensors; it is not a checkpoint of GILL or FROMAGe")
    return state


def _names(config: GillConfig) -> dict[str, str]:
    return _GILL_NAMES if config.has_mapper else _FROMAGE_NAMES


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if name == old or (old.endswith(".") and name.startswith(old)):
            return new + name.removeprefix(old)
    raise CheckpointError(f"unknown weight {name!r}; it belongs to neither GILL nor FROMAGe as released")
