"""What stops a run before it does harm, and what it tells of its work."""

from pathlib import Path

import pytest
import torch
from torch import nn

import gill.models.gill.task
import gill.training.loop
from gill.errors import TrainingError
from gill.objectives import token_cross_entropy
from gill.parameters import freeze, frozen_checksums
from gill.training import FrozenWatch, count_flops, ledger_text, newest_checkpoint
from main import ERROR_STATUS, main
from tests.cc3m_folder import COMMAND, TARGET_SHAPE, write_cc3m


def run(folder: Path, *more: str) -> int:
    quick = ["--val-batch-size=4", "--val-steps-per-epoch=1", "--lr-warmup-steps=0", f"--log-base-dir={folder}"]
    return main(["--preset=debug", "--exp-name=run", "--steps-per-epoch=4", *quick, *more])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_smallest_drift_is_seen(dtype: torch.dtype) -> None:
    model = nn.Sequential(freeze(nn.Linear(4, 3)), nn.Linear(3, 2)).to(dtype)
    watch, before = FrozenWatch(model), frozen_checksums(model)
    with torch.no_grad():
        model[1].weight.add_(1)
    watch.check(1)
    assert before.keys() == {"0.weight", "0.bias"}
    with torch.no_grad():  # one up and one down by one unit in the last place: they must not cancel
        bits = model[0].weight.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize])
        bits[2, 0] += 1
        bits[2, 1] -= 1
    with pytest.raises(TrainingError, match=r"step 7: 1 frozen tensors have changed, the first is 0\.weight"):
        watch.check(7)


def test_a_run_whose_frozen_rows_move_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    def update_and_touch(task, *arguments):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            task.model.language.table[5, 0] += 1e-3
        return update(task, *arguments)

    update = gill.training.loop.update
    monkeypatch.setattr(gill.training.loop, "update", update_and_touch)
    assert run(tmp_path, "--set", "frozen_check_freq=2") == ERROR_STATUS
    said = capsys.readouterr().err
    assert "step 2: 1 frozen tensors have changed" in said and "model.embed_tokens" in said.replace("decoder.", "")


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(write_cc3m(tmp_path, TARGET_SHAPE))
    calls: list[int] = []

    def loss(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        values = token_cross_entropy(*arguments)  # type: ignore[arg-type]
        return values * float("nan") if len(calls) > 16 else values

    monkeypatch.setattr(gill.models.gill.task, "token_cross_entropy", loss)
    assert main([*COMMAND, "--exp-name=run"]) == ERROR_STATUS
    said = capsys.readouterr().err
    assert "loss nan" in said and "its pairs: dataset/cc3m_train.tsv:" in said
    last = newest_checkpoint(tmp_path / "runs" / "run")  # its weights are from before the step
    assert last is not None and f"step {int(last.name[5:]) + 1}: loss nan" in said


def test_work_is_counted_and_told(tmp_path: Path) -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    assert ledger_text(2e14, 1800, 2) == (
        "200 TFLOP a step, 360 PFLOP in 1,800 steps: 0.5 hours at 100 TFLOP/s on each of 2"
    )
    assert run(tmp_path) == 0
    assert "TFLOP a step" in (tmp_path / "run" / "work.txt").read_text()
