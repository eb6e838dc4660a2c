"""There and back: our weights, the released layout, and files that must not be believed."""

import argparse
import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gill.errors import CheckpointError, MissingCheckpointError
from gill.mappers import DecisionHead
from gill.models.gill import (
    GillModel,
    export_released,
    load_trained,
    read_decision,
    read_released,
    save_model,
    write_decision,
)
from gill.models.gill.released import export_state, import_state, load_tensors_only
from gill.parameters import trainable_state
from scripts.parity.recipe import make_state
from tests.models.gill.tiny_gill import tiny_model

PARITY = Path(__file__).resolve().parents[2] / "parity"
FROMAGE = {"num_img_tokens": 1, "img_token_name": "[RET]", "conditioning_weight": 0.0, "diffusion": ""}


def assert_same_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Equal names and values."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0, msg=name)


def released_folder(folder: Path, name: str, seed: int, **extra: Tensor) -> Path:
    """A released checkpoint made from the recorded names and shapes."""
    meta = json.loads((PARITY / name / "meta.json").read_text())
    args = meta["model_args"]
    for key in ("opt_version", "visual_encoder"):
        args[key] = str(PARITY / name / args[key])
    folder.mkdir()
    (folder / "model_args.json").write_text(json.dumps(args))
    torch.save({"state_dict": {**make_state(seed, meta["state_shapes"]), **extra}}, folder / "pretrained_ckpt.pth.tar")
    return folder


def test_saved_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model(dtype="float32")
    with torch.no_grad():
        model.logit_scale += 1
    save_model(tmp_path, model)
    loaded, tokenizer = load_trained(tmp_path)
    assert_same_weights(trainable_state(model), trainable_state(loaded))
    sizes = {"conditioning_length": model.conditioning.length, "conditioning_width": model.conditioning.width}
    assert loaded.config == dataclasses.replace(model.config, **sizes), "sizes of the mapper are read from it"
    assert tokenizer.num_words == model.vocabulary.num_words
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors", "model.json"}


def test_our_names_and_the_released_ones_are_one_to_one() -> None:
    for changes in ({}, FROMAGE):
        model = tiny_model(dtype="float32", **changes)
        state = trainable_state(model)
        released = export_state(state, model.config)
        assert_same_weights(import_state(released, model.config), state)


@pytest.mark.parametrize(("name", "seed"), [("gill", 11), ("fromage", 31)])
def test_a_released_folder_loads_and_is_written_back(name: str, seed: int, tmp_path: Path) -> None:
    folder = released_folder(tmp_path / "released", name, seed)
    model, tokenizer = load_trained(folder, changes={"diffusion": "", "frozen_dtype": "float32"})
    assert tokenizer.num_words == 400
    recorded = json.loads((PARITY / name / "meta.json").read_text())
    export_released(tmp_path / "again", model)
    again = torch.load(tmp_path / "again" / "pretrained_ckpt.pth.tar", weights_only=True)["state_dict"]
    assert {key: list(value.shape) for key, value in again.items()} == recorded["state_shapes"]
    assert {value.dtype for value in again.values()} == {torch.bfloat16}
    ours = json.loads((tmp_path / "again" / "model_args.json").read_text())
    names = ("opt_version", "visual_encoder")
    assert {k: v for k, v in ours.items() if k not in names} == {
        k: v for k, v in recorded["model_args"].items() if k not in names
    }


def test_unpruned_checkpoints_load_too(tmp_path: Path) -> None:
    whole_table = torch.randn(408, 64)
    extra = {
        "model.input_embeddings.weight": whole_table,
        "model.lm.model.decoder.embed_tokens.weight": whole_table,
        "model.visual_model.post_layernorm.weight": torch.ones(40),
    }
    folder = released_folder(tmp_path / "released", "gill", 11, **extra)
    content = torch.load(folder / "pretrained_ckpt.pth.tar", weights_only=True)
    wrapped = {f"module.{name}": value for name, value in content["state_dict"].items()}
    torch.save(
        {"state_dict": wrapped, "epoch": 3, "args": argparse.Namespace(lr=1)}, folder / "pretrained_ckpt.pth.tar"
    )
    state = read_released(folder)[1]
    assert torch.equal(state["img_tokens.input_rows"], whole_table[-8:])


def test_fromage_files_that_kept_the_whole_table_use_the_row_beside_it(tmp_path: Path) -> None:
    folder = released_folder(tmp_path / "r", "fromage", 31, **{"model.input_embeddings.weight": torch.randn(401, 64)})
    row = torch.load(folder / "pretrained_ckpt.pth.tar", weights_only=True)["state_dict"]["ret_input_embeddings.weight"]
    assert torch.equal(read_released(folder)[1]["img_tokens.input_rows"], row)


def test_a_decision_model_comes_back(tmp_path: Path) -> None:
    head = DecisionHead(16)
    write_decision(tmp_path / "decision_model.pth.tar", head)
    again = read_decision(tmp_path / "decision_model.pth.tar")
    states = torch.randn(3, 16)
    assert torch.equal(again(states), head.eval()(states))
    assert set(torch.load(tmp_path / "decision_model.pth.tar", weights_only=True)["state_dict"]) == {
        "1.weight",
        "1.bias",
    }


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path(self.path),))  # type: ignore[return-value]


def test_files_that_would_run_code_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": _Evil(tmp_path / "executed")}, tmp_path / "evil.pth.tar")
    (tmp_path / "plain.pth.tar").write_bytes(pickle.dumps(_Evil(tmp_path / "executed")))
    for name in ("evil", "plain"):
        with pytest.raises(CheckpointError, match="cannot be read without executing code"):
            load_tensors_only(tmp_path / f"{name}.pth.tar")
    assert not (tmp_path / "executed").exists()


def test_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.pth.tar").write_bytes(b"PK\x03\x04 nothing more")
    with pytest.raises(CheckpointError, match="damaged"):
        load_tensors_only(tmp_path / "cut.pth.tar")
    torch.save({"weights": 1}, tmp_path / "foreign.pth.tar")
    with pytest.raises(CheckpointError, match="no state_dict of tensors"):
        read_decision(tmp_path / "foreign.pth.tar")
    with pytest.raises(MissingCheckpointError, match="is missing"):
        read_decision(tmp_path / "nowhere.pth.tar")
    with pytest.raises(FileNotFoundError, match=r"model_args\.json is missing"):
        read_released(tmp_path)


def test_weights_of_another_model_say_what_differs(tmp_path: Path) -> None:
    save_model(tmp_path, tiny_model(dtype="float32"))
    with pytest.raises(CheckpointError, match=r"has 4 \[IMG\] rows, the model has 8; set num_img_tokens=4"):
        load_trained(tmp_path, changes={"num_img_tokens": 8})
    with pytest.raises(CheckpointError, match="other sizes than the model"):
        load_trained(tmp_path, changes={"retrieval_width": 8})
    with pytest.raises(CheckpointError, match=r"unknown mapper\."):
        load_trained(tmp_path, changes={"conditioning_weight": 0.0})
    (tmp_path / "weights.safetensors").write_bytes(b"12345678{")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_trained(tmp_path)


def test_a_released_file_with_fewer_rows_says_so() -> None:
    model: GillModel = tiny_model(dtype="float32")
    released = export_state(trainable_state(model), model.config)
    config = dataclasses.replace(model.config, num_img_tokens=8)
    with pytest.raises(CheckpointError, match=r"has 4 \[IMG\] rows, the model has 8"):
        import_state(released, config)
    with pytest.raises(CheckpointError, match=r"unknown weight 'model\.other'"):
        import_state({"model.other": torch.ones(1)}, config)
