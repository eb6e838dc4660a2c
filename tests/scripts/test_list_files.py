"""The page of files says what the files say."""

from pathlib import Path

from scripts import list_files

PAGE = Path(__file__).resolve().parents[2] / "docs" / "LAYOUT.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == list_files.page(), "run python scripts/list_files.py docs/LAYOUT.md"


def test_a_line_is_the_files_own_first(tmp_path: Path) -> None:
    assert list_files.main([str(tmp_path / "page.md")]) == 0
    lines = (tmp_path / "page.md").read_text(encoding="utf-8").splitlines()
    wanted = (
        "| [test_list_files.py](../tests/scripts/test_list_files.py) | The page of files says what the files say. |"
    )
    assert wanted in lines
    assert lines.index("## gill") < lines.index("## gill/data") < lines.index("## evals") < lines.index("## tests")
