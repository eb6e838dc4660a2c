"""The GPU measurement runs the same code on a CPU, says that this measures nothing, and computes its figures right."""

import json
from pathlib import Path

import pytest
import torch

from scripts import measure_step
from scripts.benchmarks import gpu_step
from scripts.benchmarks.gpu_step import Meter
from scripts.benchmarks.plain_step import PlainGill
from scripts.benchmarks.setting import TINY, build_setting
from scripts.benchmarks.training import PAIRED, PLAIN, STORED, TOWER
from scripts.command import ERROR_STATUS

CPU = torch.device("cpu")


def dry_run(out: Path) -> int:
    return measure_step.main(["--dry-run", "--steps=1", "--batch-size=4", f"--out={out}"])


def test_a_dry_run_writes_every_step_and_says_that_it_measured_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(tmp_path) == 0
    table = (tmp_path / "step.md").read_text()
    assert table == capsys.readouterr().out
    assert table.startswith("**DRY RUN in toy shapes on the CPU: the figures mean nothing. Not measured.**")
    report = json.loads((tmp_path / "step.json").read_text())
    assert report["is_dry_run"]
    assert [step["step"] for step in report["steps"]] == [PLAIN, STORED, PAIRED, TOWER]
    assert all(step["tflop"] > 0 and step["mfu"] > 0 and step["peak_gib"] is None for step in report["steps"])
    work = {step["step"]: step["tflop"] for step in report["steps"]}
    assert work[PLAIN] > 3 * work[TOWER] > 3 * work[STORED]


def test_rates_are_images_and_counted_work_by_the_median_second(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.5, 9.0, 0.25])
    monkeypatch.setattr(Meter, "_seconds", lambda self, step: next(seconds))
    left, right = torch.ones(10, 20), torch.ones(20, 30)
    measured = Meter(CPU, 3, 48_000.0).measure("toy", "product", 8, lambda: left @ right)
    assert measured.tflop == 2 * 10 * 20 * 30 / 1e12
    assert (measured.seconds, measured.images_per_second, measured.mfu) == (0.5, 16.0, 0.5)  # 12,000 in half a second


def test_what_does_not_fit_is_told_and_the_rest_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu_step, "plain_step", run_out)
    assert dry_run(tmp_path) == 0
    rows = [line for line in (tmp_path / "step.md").read_text().splitlines() if line.startswith("| toy")]
    assert rows[0] == "| toy | plain | out of memory | | | | | |"
    assert len(rows) == 4 and all(row.count("|") == 9 and "%" in row for row in rows[1:])


def test_steps_of_different_losses_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = gpu_step.PlainGill.forward
    monkeypatch.setattr(gpu_step.PlainGill, "forward", lambda self: 1.03 * forward(self))
    with pytest.raises(gpu_step.BenchmarkError, match=r"toy: the plain loss is [\d.]+, ours is [\d.]+: this would"):
        gpu_step.measure_model("toy", TINY, Meter(CPU, 1, 1.0))


def test_both_steps_stay_on_the_device_of_their_weights() -> None:
    """On the meta device a tensor that was left on the host raises, as it would on a GPU."""
    meta = torch.device("meta")
    plain = PlainGill(build_setting(TINY, device=meta).task.model, build_setting(TINY).pixels, TINY.max_tokens)
    plain().backward()
    plain.keep_img_rows_only()
    plain.rescale_img_rows()
    setting = build_setting(TINY, device=meta, frozen_dtype=torch.bfloat16)
    for batch in (setting.stored, setting.paired, setting.pixels):
        setting.task(batch).total.backward()
    trained = [p for module in (plain, setting.task) for p in module.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.is_meta for p in trained)


def test_nothing_is_measured_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert measure_step.main([f"--out={tmp_path / 'step'}"]) == ERROR_STATUS
    assert "there is no GPU here, so nothing can be measured; --dry-run tries" in capsys.readouterr().err
    assert not (tmp_path / "step").exists()


def test_a_batch_that_cannot_be_joined_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_step.main(["--dry-run", "--batch-size=5"]) == ERROR_STATUS
    assert "--batch-size must be even and --steps above 0; got 5 and 20" in capsys.readouterr().err
