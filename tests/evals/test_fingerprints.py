"""A folder's answers were made in one way: other weights, or drawings of unknown origin, want another folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from evals.generate import main as generate
from evals.harness.systems import Settings, fingerprint_of
from tests.evals.benchmark_files import by_chance, write_stories


def test_answers_without_a_manifest_are_not_taken_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawings that lie there would be passed off as another model's."""
    stories = write_stories(tmp_path / "world")
    run = by_chance("vist-generation", stories, tmp_path / "run")
    (run / "run.json").unlink()
    assert generate(["vist-generation", str(run), "--data", str(stories), "--system", "chance"]) == 2
    assert "answers whose run.json is gone; choose another folder" in capsys.readouterr().err


def test_other_frozen_weights_are_another_way_of_answering(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    weights = tmp_path / "unet" / "model.safetensors"
    weights.write_bytes(bytes(3_000_000))
    (tmp_path / "README.md").write_text("a word")
    before = fingerprint_of(Settings("diffusion", str(tmp_path)))
    (tmp_path / "README.md").write_text("another")
    assert fingerprint_of(Settings("diffusion", str(tmp_path))) == before != [""]
    weights.write_bytes(bytes(2_999_999) + b"x")
    assert fingerprint_of(Settings("diffusion", str(tmp_path))) != before
    assert fingerprint_of(Settings("clip", "openai/clip-vit-large-patch14")) == [""], "a name on the hub names them"
