"""Recorded outputs of the originals are reproduced, and the check notices when they are not."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from scripts.check_parity import main
from scripts.parity.recipe import make_tensor

PARITY = Path(__file__).resolve().parent.parent / "parity"
SEEDS = {"gill": 11, "fromage": 31}


@pytest.mark.parametrize("name", SEEDS)
def test_every_recorded_quantity_is_within_the_tolerance(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(PARITY / name), "--seed", str(SEEDS[name])]) == 0
    printed = capsys.readouterr().out
    with np.load(PARITY / name / "golden.npz") as golden:
        outputs = [key for key in golden.files if "." in key and not key.endswith((".text", ".factor"))]
    assert not [key for key in outputs if f"  {key}\n" not in printed]


def test_another_seed_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(PARITY / "fromage"), "--seed", "32"]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_one_changed_entry_is_noticed_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "fromage"
    shutil.copytree(PARITY / "fromage", folder)
    with np.load(folder / "golden.npz") as golden:
        arrays = {key: golden[key] for key in golden.files}
    changed = ("single.retrieval.visual_emb", "concat.grad.ret_row", "loglik.1")
    for key in changed:
        entry = arrays[key].flat[np.abs(arrays[key]).argmax()]
        arrays[key].flat[np.abs(arrays[key]).argmax()] = entry * 1.001
    np.savez(folder / "golden.npz", **arrays)
    assert main([str(folder), "--seed", "31"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"outside: {', '.join(sorted(changed, key=list(arrays).index))}"


def test_nothing_in_the_folder_is_executed(tmp_path: Path) -> None:
    folder = tmp_path / "fromage"
    shutil.copytree(PARITY / "fromage", folder)
    (folder / "recipe.py").write_text("raise SystemExit('executed')\n")
    evil = np.array([{"a": 1}], dtype=object)
    np.savez(folder / "golden.npz", images=evil)
    with pytest.raises(ValueError, match="allow_pickle"):
        main([str(folder), "--seed", "31"])


def test_a_folder_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--seed", "1"]) == 2
    assert "meta.json is missing" in capsys.readouterr().err


def test_the_recipe_knows_its_kinds_of_tensor() -> None:
    assert make_tensor(1, "logit_scale", ()).item() == pytest.approx(2.6592600369)
    assert abs(make_tensor(1, "norm.weight", (4000,)).mean().item() - 1) < 0.01
    assert make_tensor(1, "fc.weight", (200, 400)).std().item() == pytest.approx(1 / 20, rel=0.02)
    assert make_tensor(1, "query_embs", (1, 77, 512)).std().item() == pytest.approx(1, rel=0.02)
