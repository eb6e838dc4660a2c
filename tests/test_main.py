"""`main.py` end to end on random tiny parts: run, stop, resume, preview, processes, and the commands it refuses."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gill.training import RunLog
from main import ERROR_STATUS, STOPPED_STATUS, main

REPOSITORY = Path(__file__).resolve().parents[1]
QUICK = ["--val-batch-size=4", "--val-steps-per-epoch=1", "--print-freq=1"]


def debug(folder: Path, *more: str, name: str = "run") -> list[str]:
    return ["--preset", "debug", "--log-base-dir", str(folder), "--exp-name", name, *QUICK, *more]


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> bytes:
    return (run / "model" / "weights.safetensors").read_bytes()


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
    assert len(list((run / "tensorboard").iterdir())) == 1  # one writer for the whole run, not one a row
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


def test_a_run_stopped_and_continued_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = ["--steps-per-epoch=6", "--save-freq=2", "--lr-warmup-steps=0"]
    assert main(debug(tmp_path, *longer, name="whole")) == 0
    write = RunLog.write

    def write_and_ask_to_stop(self: RunLog, step: int, values: Mapping[str, float]) -> None:
        write(self, step, values)
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "write", write_and_ask_to_stop)
        assert main(debug(tmp_path, *longer, name="stopped")) == STOPPED_STATUS
    assert [row["step"] for row in rows(tmp_path / "stopped")] == [0, 1, 2, 3]
    assert main(debug(tmp_path, *longer, "--resume", name="stopped")) == 0
    assert rows(tmp_path / "stopped") == rows(tmp_path / "whole")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


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


def test_evaluate_prints_the_scores_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(debug(tmp_path, "-e")) == 0
    assert "holds no checkpoint: what is scored are the weights a training would start from" in caplog.text
    assert {"val/loss", "val/t2i_r@1"} <= json.loads(capsys.readouterr().out).keys()
    assert list(tmp_path.iterdir()) == []


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
        (["--preset", "debug", "--steps-per-epoch", "0"], "steps_per_epoch must be above 0"),
        (["--preset", "debug", "--seed", "4294967296"], "seed must be below 2**31"),
        (["--preset", "debug", "--set", "attention=flash_attention_2"], "unknown attention 'flash_attention_2'"),
        (["--preset", "debug", "--set", "mapper_heads=0"], "mapper_heads must be above 0"),
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


def test_one_gpu_is_for_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several a machine each takes its own; several machines may name one each."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    words = debug(tmp_path, "--gpu", "0")
    assert main(words) == ERROR_STATUS and "there is no GPU 0" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert main(words) == ERROR_STATUS and "for one process a machine" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_group_saves_what_it_did(tmp_path: Path) -> None:
    settings = ["-b", "8", "--steps-per-epoch=5000", "--save-freq=5000", "--multiprocessing-distributed"]
    command = [sys.executable, "main.py", *debug(tmp_path, *settings)]
    run = tmp_path / "run"
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as process:
        while not (run / "metrics.jsonl").is_file() or len(rows_if_whole(run)) < 4:
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=600) == STOPPED_STATUS
    (saved,) = (run / "checkpoints").iterdir()
    assert json.loads((saved / "state.json").read_text())["step"] == rows(run)[-1]["step"]


@pytest.mark.slow
@pytest.mark.timeout(900)
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_machines_meet_at_an_address(tmp_path: Path) -> None:
    """The original's flags, each machine started by hand: world size and rank count machines."""
    settings = ["-b", "8", "--set", "frozen_dtype=float64", "--lr-warmup-steps=0"]
    assert main(debug(tmp_path, *settings, name="one")) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"--dist-url=tcp://127.0.0.1:{probe.getsockname()[1]}"
    flags = ["--multiprocessing-distributed", "--world-size=2", "--processes-per-node=1", "--dist-backend=gloo", url]
    command = [sys.executable, "main.py", *debug(tmp_path, *settings, *flags, name="two")]
    machines = [subprocess.Popen([*command, f"--rank={rank}"], cwd=REPOSITORY) for rank in (0, 1)]
    assert [machine.wait(timeout=600) for machine in machines] == [0, 0]
    for one, other in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert one == pytest.approx(other, rel=1e-10)
