"""The commands of the originals' READMEs run, given small backbones in the hub's layout at the names they use."""

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from main import main
from tests.cc3m_folder import write_cc3m

REPOSITORY = Path(__file__).resolve().parents[1]
GILL_ON_A_CPU = """--dataset=cc3m  --val-dataset=cc3m
    --opt-version='facebook/opt-125m' --visual-model='openai/clip-vit-base-patch16'
    --exp-name='fromage_exp'   --log-base-dir='runs/'
    --batch-size=2  --val-batch-size=2  --precision='fp32'  --print-freq=1
    --epochs=2  --val_steps_per_epoch=2   --steps_per_epoch=2"""
GILL_IN_PROCESSES = """--dist-url "tcp://127.0.0.1:{port}" --dist-backend 'gloo'
    --multiprocessing-distributed --world-size 1 --rank 0
    --dataset=cc3m  --val-dataset=cc3m
    --exp-name='gill_exp' --image-dir='data/'  --log-base-dir='runs/'
    --precision='bf16'  --print-freq=100"""
FROMAGE = """--dataset=cc3m  --val-dataset=cc3m
    --opt-version='facebook/opt-6.7b' --visual-model='openai/clip-vit-large-patch14'
    --exp_name='fromage_exp' --image-dir='data/'  --log-base-dir='runs/'
    --batch-size=180  --val-batch-size=100  --learning-rate=0.0003 --precision='bf16'  --print-freq=100"""
# The commands say nothing of the mapper; a small one makes the test quick.
SMALL_MAPPER = ["--set", "mapper_width=32", "mapper_layers=1"]


@pytest.fixture
def cc3m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: data as the README has it, and backbones where the commands' names lead."""
    write_cc3m(tmp_path, target_shape=(77, 768))
    for original, languages, towers in (
        ("gill", ["opt-125m"], ["clip-vit-base-patch16"]),
        ("fromage", ["opt-6.7b"], ["clip-vit-large-patch14"]),
    ):
        for vendor, tiny, names in (("facebook", "opt-tiny", languages), ("openai", "clip-tiny", towers)):
            (tmp_path / vendor).mkdir(exist_ok=True)
            for name in names:
                (tmp_path / vendor / name).symlink_to(REPOSITORY / "tests" / "parity" / original / vendor / tiny)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_gills_cpu_job_trains_on_photographs(cc3m: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main([*shlex.split(GILL_ON_A_CPU), *SMALL_MAPPER]) == 0
    assert "reading dataset/cc3m_train.tsv" in caplog.text
    run = cc3m / "runs" / "fromage_exp"
    assert [row["step"] for row in rows(run)] == [0, 1, 2, 2, 3, 4, 4]
    assert {"val/conditioning", "val/t2i_r@1", "val/bleu4"} <= rows(run)[-1].keys()
    assert not (run / "bad_samples.jsonl").exists()
    assert json.loads((run / "config.json").read_text())["model"]["conditioning_length"] == 77


def test_fromages_job_needs_its_preset_only(cc3m: Path) -> None:
    short = ["--epochs=1", "--steps-per-epoch=2", "--batch-size=6"]
    assert main([*shlex.split(FROMAGE), "--preset=fromage", *short, "--print-freq=1"]) == 0
    last = rows(cc3m / "runs" / "fromage_exp")[-1]
    assert "val/contrastive" in last and "val/conditioning" not in last


@pytest.mark.slow
@pytest.mark.timeout(900)  # processes that import everything anew, on a machine that may have other things to do
def test_gills_job_in_several_processes(cc3m: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        words = shlex.split(GILL_IN_PROCESSES.format(port=probe.getsockname()[1]))
    words += ["--opt-version=facebook/opt-125m", "--visual-model=openai/clip-vit-base-patch16", *SMALL_MAPPER]
    words += ["--epochs=1", "--steps_per_epoch=2", "--batch-size=4", "--val-batch-size=2"]
    subprocess.run([sys.executable, str(REPOSITORY / "main.py"), *words], cwd=cc3m, check=True)
    before, after = rows(cc3m / "runs" / "gill_exp")  # two validations; training rows are rarer
    assert before.keys() == after.keys() >= {"val/loss", "val/conditioning", "val/t2i_r@1"}
    assert before["val/loss"] > 0  # of 5 pairs in batches of 2: the processes share them unequally
