"""What breaks around a run: full disks, folders, vanishing data, readers and ranks that die; nothing saved is lost."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gill.data import FeatureWriter, StoreCard
from gill.training import Checkpoints, RunLog, newest_checkpoint
from main import ERROR_STATUS, STOPPED_STATUS, main
from scripts.extract_img_features import main as extract
from tests.cc3m_folder import COMMAND, TARGET_SHAPE, write_cc3m
from tests.groups import run_main

REPOSITORY = Path(__file__).resolve().parents[1]
QUICK = ["--val-batch-size=4", "--val-steps-per-epoch=1", "--print-freq=1", "--lr-warmup-steps=0", "--save-freq=2"]
PLAIN = ["--set", "num_captions=0", "num_panels=0"]


def debug(folder: Path, name: str, *more: str) -> list[str]:
    return [
        "--preset=debug",
        "--steps-per-epoch=6",
        f"--log-base-dir={folder}",
        f"--exp-name={name}",
        *QUICK,
        *more,
        *PLAIN,
    ]


def weights(run: Path) -> bytes:
    return (run / "model" / "weights.safetensors").read_bytes()


def at_step(step: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something as soon as the metrics of a step are written."""
    write = RunLog.write

    def write_and_act(self: RunLog, number: int, values: Mapping[str, float]) -> None:
        write(self, number, values)
        if number == step:
            act()

    monkeypatch.setattr(RunLog, "write", write_and_act)


def fill_disk_at_the_second_save() -> None:
    """From then on no file may grow beyond a few blocks: the kernel refuses, as it does on a full disk."""
    save, calls = Checkpoints.save, []

    def save_on_a_full_disk(self: Checkpoints, *arguments: object) -> Path:
        calls.append(self)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        return save(self, *arguments)  # type: ignore[arg-type]

    Checkpoints.save = save_on_a_full_disk  # type: ignore[assignment, method-assign]


@pytest.mark.slow
def test_a_disk_that_fills_while_saving_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    assert main(debug(tmp_path, "whole")) == 0
    command, run = debug(tmp_path, "full"), tmp_path / "full"
    (status,), said = run_main(1, command, tmp_path / "log.txt", fill_disk_at_the_second_save)
    assert status == ERROR_STATUS
    assert (
        "cannot write" in said and "step-00000004" in said and "same command again" in said and "Traceback" not in said
    )
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
    assert newest_checkpoint(run) == run / "checkpoints" / "step-00000002"
    assert main(command) == 0
    assert weights(run) == weights(tmp_path / "whole")


def test_a_disk_that_is_full_for_the_log_ends_the_run_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "run" / "metrics.jsonl"))

    with monkeypatch.context() as patch:
        at_step(3, refuse, patch)
        assert main(debug(tmp_path, "run")) == ERROR_STATUS
    said = capsys.readouterr().err
    assert "No space left on device" in said and "metrics.jsonl" in said and "same command again" in said
    assert main(debug(tmp_path, "run")) == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")  # refuses the superuser too
    assert main(debug(tmp_path / "runs", "run")) == ERROR_STATUS
    said = capsys.readouterr().err
    assert str(tmp_path / "runs") in said and "rights" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_rights_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").mkdir(mode=0o555)
    assert main(debug(tmp_path / "runs", "run")) == ERROR_STATUS
    assert "Permission denied" in capsys.readouterr().err


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: corrupt(folder / "optimizer.safetensors"),
        lambda folder: (folder / "weights.safetensors").write_bytes(b""),
        lambda folder: (folder / "checksums.json").write_text('{"state.json":'),
        lambda folder: (folder / "state.json").unlink(),
    ],
    ids=["one bit", "torn", "torn checksums", "missing file"],
)
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path,
    damage: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    command, run = debug(tmp_path, "run"), tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(5, lambda: signal.raise_signal(signal.SIGTERM), patch)
        assert main(command) == STOPPED_STATUS
    damage(run / "checkpoints" / "step-00000005")
    assert main(command) == 0
    (warning,) = [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()]
    assert "step-00000005" in warning and "the checkpoint before it is used" in warning
    assert main(debug(tmp_path, "whole")) == 0
    assert weights(run) == weights(tmp_path / "whole")
    assert newest_checkpoint(run) == run / "checkpoints" / "step-00000006"


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(3, lambda: signal.raise_signal(signal.SIGTERM), monkeypatch)
    assert main(debug(tmp_path, "run")) == STOPPED_STATUS
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        corrupt(path / "weights.safetensors")
    assert main(debug(tmp_path, "run")) == ERROR_STATUS
    assert "all 2 checkpoints" in capsys.readouterr().err


@pytest.fixture
def cc3m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_cc3m(tmp_path, TARGET_SHAPE)


@pytest.mark.parametrize("is_rewritten", [False, True], ids=["vanished", "rewritten"])
def test_a_caption_file_that_vanishes_ends_the_run_with_its_name(
    cc3m: Path, is_rewritten: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = cc3m / "dataset" / "cc3m_train.tsv"
    content, times = table.read_text(), (table.stat().st_atime_ns, table.stat().st_mtime_ns)
    act = (lambda: table.write_text(content[:60])) if is_rewritten else table.unlink
    with monkeypatch.context() as patch:
        at_step(2, act, patch)
        assert main([*COMMAND, "--exp-name=run"]) == ERROR_STATUS
    wanted = "has changed since it was opened" if is_rewritten else "can no longer be read"
    assert wanted in capsys.readouterr().err
    assert newest_checkpoint(cc3m / "runs" / "run") is not None
    table.write_text(content)
    os.utime(table, ns=times)
    assert main([*COMMAND, "--exp-name=run"]) == 0


def test_pictures_of_a_damaged_shard_are_bad_samples_and_its_repair_continues(
    cc3m: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for split, folder in (("train", "training"), ("val", "validation")):
        store = [f"dataset/cc3m_{split}.tsv", f"data/cc3m/{folder}", f"features/{folder}", "--visual-model=tiny"]
        assert extract([*store, "--shard-rows=4"]) == 0
    corrupt(cc3m / "features" / "training" / "shard-00001.npy")
    command = [*COMMAND, "--image-features=features", "--exp-name=run"]
    assert main(command) == ERROR_STATUS
    assert "is not among the 8 pictures" in capsys.readouterr().err
    assert "shard-00001.npy or .txt differs from its checksum" in caplog.text
    assert main([*command, "--max-bad-fraction=0.5"]) == 0
    report = [json.loads(line) for line in (cc3m / "runs/run/bad_samples.jsonl").read_text().splitlines()]
    assert {row["line"] for row in report} <= {6, 7, 8, 9} and report
    extract(
        ["dataset/cc3m_train.tsv", "data/cc3m/training", "features/training", "--visual-model=tiny", "--shard-rows=4"]
    )
    assert sorted(path.name for path in (cc3m / "features/training/quarantine").iterdir()) == [
        "shard-00001.json",
        "shard-00001.npy",
        "shard-00001.txt",
    ]
    assert main([*COMMAND, "--image-features=features", "--exp-name=mended"]) == 0


def test_a_store_knows_its_own_damaged_shards(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path, StoreCard("tiny", 2, shard_rows=1))
    for damaged in ("", "[]", '{"rows": 1}'):
        (tmp_path / "shard-00000.json").write_text(damaged)
        assert writer.missing(["a"]) == [(0, ["a"])]


def kill_a_reader() -> None:
    readers = multiprocessing.active_children()
    assert readers
    os.kill(readers[0].pid or 0, signal.SIGKILL)


@pytest.mark.slow
def test_a_reader_that_is_killed_ends_the_run_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = debug(tmp_path, "run", "--workers=1")
    with monkeypatch.context() as patch:
        at_step(3, kill_a_reader, patch)
        assert main(command) == ERROR_STATUS
    said = capsys.readouterr().err
    assert "a process that reads data has ended" in said and "lower --workers" in said
    assert newest_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoints" / "step-00000002"
    assert main(command) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_rank_that_is_killed_ends_the_others_and_the_launcher(tmp_path: Path) -> None:
    settings = ["-b", "8", "--steps-per-epoch=5000", "--save-freq=2", "--multiprocessing-distributed"]
    command = [sys.executable, "main.py", *debug(tmp_path, "run", *settings)]
    run = tmp_path / "run"
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        while newest_or_none(run) is None:
            assert process.poll() is None
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ranks = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        os.kill(ranks[-1], signal.SIGKILL)
        process.communicate(timeout=600)
        assert process.returncode not in (0, None)
    assert newest_or_none(run) is not None
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


def newest_or_none(run: Path) -> Path | None:
    """As `newest_checkpoint`, of a run that is removing older ones meanwhile."""
    return max((run / "checkpoints").glob("step-*"), default=None)


@pytest.mark.slow
def test_a_run_continues_on_another_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(name: str) -> list[str]:
        return [*debug(tmp_path, name, "-b", "8"), "frozen_dtype=float64"]

    assert main(command("whole")) == 0
    with monkeypatch.context() as patch:
        at_step(3, lambda: signal.raise_signal(signal.SIGTERM), patch)
        assert main(command("moved")) == STOPPED_STATUS
    statuses, _ = run_main(2, command("moved"), tmp_path / "log.txt")
    assert statuses == [0, 0]
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "moved")
    ]
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-10)
