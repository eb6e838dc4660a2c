"""Examples run as they stand in their README."""

from pathlib import Path

import pytest
from PIL import Image

from examples.refine import main


@pytest.mark.slow
def test_every_turn_gets_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "refined.png"
    assert main([str(out), "--say", "a big red star at the top left of the sea.", "a small one."]) == 0
    assert "2 pictures" in capsys.readouterr().out
    with Image.open(out) as row:
        assert row.size == (128, 64)
        assert len(row.getcolors(maxcolors=10_000) or []) > 50, "drawn, not blank"
