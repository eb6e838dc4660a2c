"""The build of the frozen parts: the same code at a thousandth of the steps, stopped and continued."""

import json

import pytest
import torch
from PIL import Image
from torch import nn

from gill.errors import TrainingError
from gill.flatland.pictures import draw_batch
from gill.flatland.world import Scene, Thing, scenes
from scripts import build_flatland, evaluate_flatland
from scripts.flatland import clip, diffusion, language, vae
from scripts.flatland.common import BuildContext, Training, mean_marks, warmup_cosine, warmup_linear


@pytest.fixture
def context(tmp_path):
    return BuildContext(tmp_path / "work", tmp_path / "out", seed=0, device=torch.device("cpu"))


def line_training(steps: int = 30, **settings) -> Training:
    """Fit one number to 3, with noise that depends on the step."""
    torch.manual_seed(0)
    module = nn.Linear(1, 1, bias=False)

    def loss(step: int) -> dict[str, torch.Tensor]:
        noise = torch.randn(8, 1, generator=torch.Generator().manual_seed(step))
        return {"loss": ((module(noise) - 3 * noise) ** 2).mean()}

    return Training("line", module, loss, steps, 0.3, warmup=5, **settings)


def test_a_training_learns_and_its_average_follows(context):
    trained = line_training(200, ema_decay=0.9).run(context)
    assert trained.weight.item() == pytest.approx(3, abs=0.05)


def test_a_stopped_training_ends_like_one_that_was_not(context, tmp_path):
    whole = line_training(ema_decay=0.9).run(context).weight.item()
    other = BuildContext(tmp_path / "other", tmp_path / "out", 0, torch.device("cpu"))
    stopped = line_training(ema_decay=0.9)
    stopped.loss = _stop_at(stopped.loss, 17, lambda: stopped._save(other.work / "line", 17))
    with pytest.raises(KeyboardInterrupt):
        stopped.run(other)
    continued = line_training(ema_decay=0.9)
    assert continued.run(other).weight.item() == whole
    assert continued.start == 17


def _stop_at(loss, last, save):
    def stopping(step):
        if step == last:
            save()
            raise KeyboardInterrupt
        return loss(step)

    return stopping


def test_a_kill_while_saving_leaves_the_last_state(context, monkeypatch):
    training = line_training(5)
    training.run(context)
    before = (context.work / "line" / "state.pt").read_bytes()
    monkeypatch.setattr(torch, "save", lambda state, path: path.write_bytes(b"torn") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training._save(context.work / "line", 5)
    assert (context.work / "line" / "state.pt").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_the_training(context):
    training = line_training()
    training.loss = lambda step: {"loss": training.module.weight.sum() * float("nan")}
    with pytest.raises(TrainingError, match="line: the loss of step 0 is nan"):
        training.run(context)


def test_schedules_rise_and_end_near_zero():
    for schedule in (warmup_cosine, warmup_linear):
        factors = [schedule(step, 100, 10) for step in range(100)]
        assert factors[0] == pytest.approx(0.1)
        assert max(factors) == pytest.approx(1, abs=0.01)
        assert factors[-1] < 0.05


def test_facts_list_cells_then_place():
    scene = Scene("sea", (Thing("box", "red", "big", "top right"),))
    assert clip.facts_of(scene) == [0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0, 0, 2]


def test_standardised_latents_have_unit_variance_and_decode_the_same():
    torch.manual_seed(0)
    model = vae.new_vae().eval()
    pixels = torch.randn(64, 3, 64, 64)
    with torch.no_grad():
        before = model.decode(model.encode(pixels).latent_dist.mean).sample
        vae.standardise_latents(model, pixels)
        posterior = model.encode(pixels).latent_dist
        after = model.decode(posterior.mean).sample
        sample = posterior.sample()
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sample.mean((0, 2, 3)), torch.zeros(4), atol=0.05, rtol=0)
    torch.testing.assert_close(sample.std((0, 2, 3)), torch.ones(4), atol=0.05, rtol=0)


def test_mean_marks_are_one_on_true_pictures():
    true = list(scenes("val", 10))
    assert set(mean_marks(draw_batch(true), true).values()) == {1.0}


@pytest.mark.slow
def test_a_rehearsal_builds_parts_that_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(diffusion, "CHUNK", 96)
    monkeypatch.setattr(language, "BATCH", 4)
    monkeypatch.setattr(clip, "BATCH", 8)
    folders = ["--out", str(tmp_path / "parts"), "--work", str(tmp_path / "work")]
    command = [*folders, "--scale", "0.0003", "--device", "cpu"]
    assert build_flatland.main([*command, "--stages", "diffusion"]) == 2
    assert "run the earlier stages first" in capsys.readouterr().err
    assert build_flatland.main(command) == 0
    report = json.loads((tmp_path / "work" / "vae" / "done.json").read_text())
    assert report["steps"] == 2
    weights = tmp_path / "parts" / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors"
    written = weights.stat().st_mtime_ns
    assert build_flatland.main(command) == 0
    assert weights.stat().st_mtime_ns == written
    assert build_flatland.main([*command, "--seed", "1"]) == 2
    assert "from another build" in capsys.readouterr().err
    figures = tmp_path / "figures"
    asked = ["--n", "2", "--seeds", "1", "--parts", str(tmp_path / "parts"), "--figures", str(figures)]
    assert evaluate_flatland.main([*asked, "--only", "judge", "language", "vae", "diffusion"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    wanted = {"judge_all", "lm_context_colour", "lm_context_place", "vae_all", "place", "cells", "shape", "colour"}
    assert wanted | {"shape_colour_cell", "whole", "novel_shape_colour_cell", "seconds_per_64"} <= set(last)
    with Image.open(figures / "samples_test.png") as grid:
        assert grid.width > 128
    assert evaluate_flatland.main([*asked, "--only", "judge", "vae", "--cards", str(tmp_path / "work")]) == 0
    card = (tmp_path / "parts" / "diffusion" / "README.md").read_text()
    assert "--stages vae diffusion refine` with seed 0, 0, 0" in card
    assert f"| `vae_all` | {last['vae_all']:.4f} ± " in card


def test_evaluating_without_parts_says_what_to_run(tmp_path, capsys):
    assert evaluate_flatland.main(["--parts", str(tmp_path), "--n", "1"]) == 2
    assert "run scripts/build_flatland.py first" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    folders = ["--out", str(tmp_path), "--work", str(tmp_path / "work")]
    assert build_flatland.main([*folders, "--stages", "tokenizers"]) == 2
    assert "holds something else (thesis.txt)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_work_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    folders = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "file" / "work")]
    assert build_flatland.main([*folders, "--stages", "tokenizers"]) == 2
    assert "file/work" in capsys.readouterr().err
