"""The figure of the architecture says what the built models are."""

import re
from pathlib import Path

import pytest

from scripts import draw_architecture

REPOSITORY = Path(__file__).resolve().parents[2]


def words(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_figure_in_the_documents_is_drawn_from_the_code_as_it_is() -> None:
    drawn = draw_architecture.draw_architecture(draw_architecture.model_of("opt-6.7b"))
    assert (REPOSITORY / "docs/img/architecture.svg").read_text("utf-8") == drawn
    prefix, rows, decision = 1025 * 4 * 4096, 8 * 4096, 4097 * 2  # by hand, weights and biases
    assert (prefix, rows, decision) == (16_793_600, 32_768, 8_194)
    expected = ["visual prefix: 16.8 M", "1024 to 4 x 4096", "[IMG] rows: 32.8 k", "8 x 4096", "[IMG0] ... [IMG7]"]
    expected += ["decision head: 8.19 k", "8 states to 77 x 768", "first state: 4096 to 256"]
    assert set(expected) < set(words(drawn))


def test_another_model_gives_another_figure(tmp_path: Path) -> None:
    model = REPOSITORY / "checkpoints/gill_flatland"
    assert draw_architecture.main([str(tmp_path / "a.svg"), "--model", str(model)]) == 0
    found = words((tmp_path / "a.svg").read_text("utf-8"))
    assert "[IMG0] ... [IMG20]" in found and "8 x 4096" not in found
    assert any(line.startswith("21 states to ") for line in found)


def test_a_name_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw_architecture.main([str(tmp_path / "a.svg"), "--model", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "a.svg").exists()
