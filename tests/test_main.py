"""`main.py` end to end on random tiny parts: run, resume, preview, the originals' flags, and what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gill.data import target_path, write_target
from main import ERROR_STATUS, STOPPED_STATUS, main

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = ["--opt-version=tiny", "--visual-model=tiny", "--set", "mapper_width=32", "mapper_layers=1"]
QUICK = ["--val-batch-size=4", "--val-steps-per-epoch=1", "--print-freq=1"]


def debug(folder: Path, *more: str, name: str = "run") -> list[str]:
    return ["--preset", "debug", "--log-base-dir", str(folder), "--exp-name", name, *QUICK, *more]


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> bytes:
    return (run / "model" / "weights.safetensors").read_bytes()


@pytest.fixture
def cc3m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set laid out as the original's README says, with stored targets; the working directory is there."""
    (tmp_path / "dataset").mkdir()
    for split, folder, count in (("train", "training", 12), ("val", "validation", 5)):
        pictures = tmp_path / "data" / "cc3m" / folder
        pictures.mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (16, 16), (index * 20, 5, 90)).save(pictures / f"{split}{index}.jpg")
            write_target(target_path(pictures / "clip_embs", f"{split}{index}"), np.ones((12, 16), np.float16))
        lines = [f"a picture of number {index}\t{split}{index}" for index in range(count)]
        (tmp_path / "dataset" / f"cc3m_{split}.tsv").write_text("\n".join(["caption\timage", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


ORIGINAL = ["--dataset=cc3m", "--val-dataset=cc3m", "--image-dir=data/", "--log-base-dir=runs/", "--print-freq=1"]
SHORT = ["--epochs=1", "--steps_per_epoch=2", "--batch-size=4", "--val_steps_per_epoch=-1", "--val-batch-size=4"]
SIZES = ["--num-clip-tokens", "12", "--gen-emb-dim", "16"]


def test_the_debug_preset_runs_without_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(debug(tmp_path)) == 0
    run = tmp_path / "run"
    assert [row["step"] for row in rows(run)] == [0, 1, 2, 2]
    trained, scored = rows(run)[1], rows(run)[3]
    assert {"train/loss", "train/captioning", "train/text", "train/contrastive", "train/conditioning"} <= trained.keys()
    assert all(name.startswith("val/") for name in scored if name != "step")
    assert {"val/token_accuracy", "val/t2i_r@1", "val/i2t_r@10", "val/conditioning", "val/bleu4"} <= scored.keys()
    for name in ("config.json", "environment.json", "git.diff", "parameters.txt", "model/model.json"):
        assert (run / name).is_file(), name
    with Image.open(run / "panels" / "panel-00000002.png") as panel:
        assert panel.width > 300
    board = EventAccumulator(str(run / "tensorboard")).Reload().Tags()
    assert "train/loss" in board["scalars"] and "panel" in board["images"]
    assert main(debug(tmp_path)) == 0
    assert "finished already" in capsys.readouterr().out
    assert len(rows(run)) == 4


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(debug(tmp_path, "--dry-run", "--set", "num_img_tokens=3")) == 0
    shown = capsys.readouterr().out
    assert '"num_img_tokens": 3' in shown and "trainable" in shown and "texts (4, " in shown
    assert list(tmp_path.iterdir()) == []


def test_a_run_stopped_and_continued_ends_with_the_same_bytes(tmp_path: Path) -> None:
    longer = ["--steps-per-epoch=6", "--save-freq=2", "--lr-warmup-steps=0"]
    assert main(debug(tmp_path, *longer, name="whole")) == 0
    timer = threading.Thread(target=_stop_after_steps, args=(tmp_path / "stopped", 3))
    timer.start()
    assert main(debug(tmp_path, *longer, name="stopped")) == STOPPED_STATUS
    timer.join()
    done = len(rows(tmp_path / "stopped")) - 1
    assert 3 <= done < 6
    assert main(debug(tmp_path, *longer, "--resume", name="stopped")) == 0
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def _stop_after_steps(run: Path, count: int) -> None:
    """Ask this process to stop once that many rows were written."""
    for _ in range(40_000):  # minutes, on a machine that has other things to do
        if (run / "metrics.jsonl").is_file() and len(rows_if_whole(run)) > count:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.005)


def rows_if_whole(run: Path) -> list[str]:
    return [line for line in (run / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]


def test_other_settings_do_not_continue_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(debug(tmp_path)) == 0
    assert main(debug(tmp_path, "--lr", "0.5")) == ERROR_STATUS
    assert "recipe.learning_rate: 0.001, now 0.5" in capsys.readouterr().err


def test_resume_without_a_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(debug(tmp_path, "--resume")) == ERROR_STATUS
    assert "holds no checkpoint" in capsys.readouterr().err


def test_another_runs_checkpoint_can_be_the_start(tmp_path: Path) -> None:
    assert main(debug(tmp_path, name="first")) == 0
    more = debug(tmp_path, "--epochs=2", "--resume", str(tmp_path / "first"), name="second")
    assert main(more) == 0
    assert [row["step"] for row in rows(tmp_path / "second")] == [3, 4, 4]


def test_evaluate_prints_the_scores_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(debug(tmp_path, "-e")) == 0
    assert {"val/loss", "val/t2i_r@1"} <= json.loads(capsys.readouterr().out).keys()
    assert list(tmp_path.iterdir()) == []


def test_the_originals_command_runs(cc3m: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = [*ORIGINAL, "--exp_name=gill_exp", "--precision=fp32", *SHORT, *SIZES, *TINY]
    assert main(words) == 0
    assert "reading dataset/cc3m_train.tsv" in caplog.text
    assert rows(cc3m / "runs" / "gill_exp")[0].keys() >= {"val/conditioning", "val/t2i_r@1"}


def test_fromages_command_runs_with_its_preset(cc3m: Path) -> None:
    words = [*ORIGINAL, "--exp_name=fromage_exp", "--learning-rate=0.0003", "--preset=fromage", *SHORT]
    assert main([*words, "--precision=fp32", "--opt-version=tiny", "--visual-model=tiny", "--max-len", "40"]) == 0
    last = rows(cc3m / "runs" / "fromage_exp")[-1]
    assert "val/contrastive" in last and "val/conditioning" not in last


def test_a_bad_picture_is_replaced_in_training_and_left_out_in_validation(cc3m: Path) -> None:
    for path in ("training/train3.jpg", "validation/val1.jpg"):
        (cc3m / "data" / "cc3m" / path).write_text("broken")
    words = [*ORIGINAL, "--exp-name=bad", *SHORT, "--steps-per-epoch=3", *SIZES, *TINY, "--precision=fp32"]
    assert main([*words, "--max-bad-fraction=0.5"]) == 0
    report = [json.loads(line) for line in (cc3m / "runs" / "bad" / "bad_samples.jsonl").read_text().splitlines()]
    assert {(Path(row["source"]).name, row["line"]) for row in report} == {("cc3m_train.tsv", 5), ("cc3m_val.tsv", 3)}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda data: (data / "cc3m" / "validation" / "val1.jpg").write_text("x"),
            "cc3m_val.tsv:3: .*raise --max-bad-frac",
        ),
        (lambda data: (data / "cc3m" / "training" / "clip_embs" / "train0.npy").unlink(), "no conditioning target"),
        (
            lambda data: (data.parent / "dataset" / "cc3m_train.tsv").write_text("caption,image\n"),
            "seems to be separated",
        ),
        (lambda data: (data.parent / "dataset" / "cc3m_train.tsv").unlink(), "cc3m_train.tsv is missing"),
    ],
)
def test_bad_data_end_the_run_with_file_and_line(cc3m: Path, spoil, message: str, capsys) -> None:  # type: ignore[no-untyped-def]
    spoil(cc3m / "data")
    words = [*ORIGINAL, *SHORT, "--steps-per-epoch=6", *SIZES, *TINY, "--precision=fp32"]
    assert main(words) == ERROR_STATUS
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "debgu"], "did you mean 'debug'"),
        (["--preset", "debug", "--batchsize", "4"], "unknown flag '--batchsize'; did you mean '--batch-size'"),
        (["--preset", "debug", "--set", "num_img_toknes=4"], "did you mean 'num_img_tokens'"),
        (["--preset", "debug", "--set", "num_img_tokens=four"], "num_img_tokens wants int, got 'four'"),
        (["--preset", "debug", "-b", "5"], "choose a multiple of 2"),
        (["--preset", "debug", "--image-size", "224"], "tiny reads 32"),
        (["--preset", "debug", "--gen-emb-dim", "768"], "gives (12, 16)"),
        (["--preset", "debug", "--precision", "fp16"], "use bf16 or fp32"),
        (["--preset", "debug", "--multiprocessing-distributed", "--dist-backend", "nccl"], "use --dist-backend gloo"),
        (["--preset", "debug", "--gpu", "0"], "there is no GPU"),
        (["--preset", "debug", "--use_image_embed_norm"], "did nothing in the original"),
        (["--preset", "fromage", "--gen-loss-scale", "2"], "a model that draws"),
        (["--opt-version", "no/such/folder", "--dataset", "flatland", "--diffusion-model", "tiny"], "cannot load"),
    ],
)
def test_a_wrong_command_says_what_to_do(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert main([*words, "--log-base-dir", str(tmp_path), "--val-dataset", "flatland"]) == ERROR_STATUS
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(tmp_path: Path) -> None:
    longer = ["--steps-per-epoch=6", "--save-freq=2", "--lr-warmup-steps=0", "--workers=1"]
    assert main(debug(tmp_path, *longer, name="whole")) == 0
    command = [sys.executable, "main.py", *debug(tmp_path, *longer, name="killed")]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
        while not list((tmp_path / "killed").glob("checkpoints/step-*")):
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    assert not (tmp_path / "killed" / "model").exists()
    assert main(debug(tmp_path, *longer, name="killed")) == 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_stopped_group_saves_and_continues(tmp_path: Path) -> None:
    settings = ["-b", "8", "--steps-per-epoch=200", "--save-freq=1000", "--multiprocessing-distributed"]
    command = [sys.executable, "main.py", *debug(tmp_path, *settings)]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "run" / "metrics.jsonl").is_file() or len(rows_if_whole(tmp_path / "run")) < 4:
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        assert process.wait(timeout=120) == STOPPED_STATUS
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert json.loads((saved / "state.json").read_text())["step"] == rows(tmp_path / "run")[-1]["step"]


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_run(tmp_path: Path) -> None:
    settings = ["-b", "8", "--set", "frozen_dtype=float64", "--lr-warmup-steps=0"]
    assert main(debug(tmp_path, *settings, name="one")) == 0
    many = debug(tmp_path, *settings, "--multiprocessing-distributed", "--dist-backend", "gloo", name="two")
    subprocess.run([sys.executable, "main.py", *many, "--world-size=1", "--rank=0"], cwd=REPOSITORY, check=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "main.py"]
    cut = debug(tmp_path, *settings, "--grad-accumulation-steps=2", name="four")
    subprocess.run([*torchrun, *cut], cwd=REPOSITORY, check=True)
    for name in ("two", "four"):
        for one, other in zip(rows(tmp_path / "one"), rows(tmp_path / name), strict=True):
            assert one == pytest.approx(other, rel=1e-10)
