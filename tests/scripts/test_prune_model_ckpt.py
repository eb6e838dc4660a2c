"""Pruning: a run, a whole checkpoint of the originals, and what is never overwritten."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gill.errors import CheckpointError
from gill.models.gill import load_trained, read_released, read_trained, save_model
from gill.parameters import trainable_state
from scripts.parity.recipe import make_state
from scripts.prune_model_ckpt import main
from tests.models.gill.tiny_gill import tiny_model

PARITY = Path(__file__).resolve().parents[1] / "parity"
STORED = {"conditioning_length": 12, "conditioning_width": 16}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder whose best and last weights differ by their temperature: 1, 2, and 3 for a step not yet exported."""
    for value, name in enumerate(("best", "model", "checkpoints/step-00000007"), start=1):
        model = tiny_model(dtype="float32")
        model.logit_scale.data.fill_(value)
        save_model(tmp_path / "run" / name, model)
    (tmp_path / "run" / "checkpoints" / "step-00000007" / "optimizer.safetensors").write_bytes(b"moments" * 1000)
    return tmp_path / "run"


def whole_checkpoint(folder: Path, name: str, seed: int) -> Path:
    """A training checkpoint as the originals write it: frozen parts, the whole table, optimiser and schedule."""
    meta = json.loads((PARITY / name / "meta.json").read_text())
    args = meta["model_args"]
    args |= {key: str(PARITY / name / args[key]) for key in ("opt_version", "visual_encoder")}
    folder.mkdir()
    (folder / "model_args.json").write_text(json.dumps(args))
    state = make_state(seed, meta["state_shapes"])
    rows = state.pop("ret_input_embeddings.weight", None)
    rows = state.pop("model.input_embeddings.weight") if rows is None else rows
    state["model.input_embeddings.weight"] = torch.cat([torch.full((30, rows.shape[1]), 9.0), rows])
    state["model.lm.model.decoder.final_layer_norm.weight"] = torch.ones(64)
    state["model.visual_model.vision_model.post_layernorm.bias"] = torch.ones(40)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))])
    schedule: dict[str, Any] = {"last_epoch": 4, "after_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 5)}
    whole = {"epoch": 3, "best_acc1": torch.tensor(0.5), "optimizer": optimizer.state_dict(), "scheduler": schedule}
    content = {**whole, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(content, folder / "ckpt_best.pth.tar")
    return folder


@pytest.mark.parametrize(("words", "temperature"), [([], 1.0), (["--which", "last"], 2.0)])
def test_a_run_is_pruned_to_what_trains(run: Path, words: list[str], temperature: float) -> None:
    assert main([str(run), *words]) == 0
    assert {path.name for path in (run / "pruned").iterdir()} == {"weights.safetensors", "model.json"}
    model, _ = load_trained(run / "pruned")
    assert model.logit_scale.item() == temperature
    conditioning = model.conditioning
    assert conditioning is not None
    sizes = {"conditioning_length": conditioning.length, "conditioning_width": conditioning.width}
    assert model.config == replace(tiny_model(dtype="float32").config, **sizes)


def test_an_unfinished_run_has_a_last_checkpoint(run: Path) -> None:
    for path in (run / "model").iterdir():
        path.unlink()
    (run / "model").rmdir()
    assert read_trained(run, "last").state["logit_scale"].item() == 3.0
    assert read_trained(run / "checkpoints" / "step-00000007").state["logit_scale"].item() == 3.0


def test_nothing_is_overwritten_unless_asked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run)]) == 0
    (run / "pruned" / "notes.txt").write_text("mine")
    assert main([str(run), "--which", "last"]) == 2
    assert "--force to replace" in capsys.readouterr().err
    assert read_trained(run / "pruned").state["logit_scale"].item() == 1.0
    assert main([str(run), "--which", "last", "--force"]) == 0
    assert read_trained(run / "pruned").state["logit_scale"].item() == 2.0
    assert (run / "pruned" / "notes.txt").read_text() == "mine"


def test_a_pruned_run_in_the_released_layout(run: Path) -> None:
    assert main([str(run), "--released", "--out", str(run / "released")]) == 0
    assert {path.name for path in (run / "released").iterdir()} == {"pretrained_ckpt.pth.tar", "model_args.json"}
    config, state = read_released(run / "released")
    assert (config.conditioning_length, config.conditioning_width, config.num_img_tokens) == (12, 16, 4)
    for name, tensor in trainable_state(tiny_model(dtype="float32")).items():
        if name != "logit_scale":
            assert torch.equal(state[name], tensor.bfloat16().float()), name


@pytest.mark.parametrize(("name", "seed"), [("gill", 11), ("fromage", 31)])
def test_a_whole_checkpoint_of_the_originals_is_pruned(name: str, seed: int, tmp_path: Path) -> None:
    folder = whole_checkpoint(tmp_path / "theirs", name, seed)
    assert main([str(folder)]) == 0
    meta = json.loads((PARITY / name / "meta.json").read_text())
    wanted = make_state(seed, meta["state_shapes"])
    trained = read_trained(folder / "pruned")
    assert trained.num_values == sum(tensor.numel() for tensor in wanted.values())
    rows = wanted.get("ret_input_embeddings.weight", wanted.get("model.input_embeddings.weight"))
    assert torch.equal(trained.state["img_tokens.input_rows"], rows)
    model, tokenizer = load_trained(folder / "pruned", changes={"diffusion": "", "frozen_dtype": "float32"})
    assert tokenizer.num_words == trained.num_words == 400
    assert model.logit_scale.item() == pytest.approx(wanted["model.logit_scale"].item())


def test_what_else_a_checkpoint_holds_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = whole_checkpoint(tmp_path / "theirs", "gill", 11)
    content = {"state_dict": {}, "scheduler": torch.nn.Linear(2, 2)}  # an object that is neither tensor nor schedule
    torch.save(content, folder / "ckpt_best.pth.tar")
    assert main([str(folder)]) == 2
    assert "cannot be read without executing code" in capsys.readouterr().err
    assert not (folder / "pruned").exists()


def test_a_folder_without_a_checkpoint_says_what_was_wanted(tmp_path: Path, run: Path) -> None:
    with pytest.raises(CheckpointError, match="looked for best, ckpt_best"):
        read_trained(tmp_path)
    for path in (run / "best").iterdir():
        path.unlink()
    (run / "best").rmdir()
    with pytest.raises(CheckpointError, match="it has a last one"):
        read_trained(run)
    assert main([str(tmp_path / "none")]) == 2


def test_half_rounds_matrices_to_float16_and_nothing_else(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "--half", "--out", str(tmp_path / "half")]) == 0
    whole, half = (read_trained(place).state for place in (run, tmp_path / "half"))
    for name, tensor in half.items():
        assert torch.equal(tensor, whole[name].half() if whole[name].dim() > 1 else whole[name]), name
    model, _ = load_trained(tmp_path / "half", changes=STORED)
    assert model.trainable_dtype == torch.float32


def test_half_refuses_what_it_cannot_hold(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model(dtype="float32")
    model.visual_prefix.linear.weight.data[0, 0] = 1e6
    save_model(run / "best", model)
    assert main([str(run), "--half"]) == 2
    assert "float16 cannot hold visual_prefix.linear.weight" in capsys.readouterr().err
