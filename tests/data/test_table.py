"""Caption files: what is read, what is refused, and in which words."""

from pathlib import Path

import pytest

from gill.data import CaptionTable
from gill.data.table import MAX_CAPTION_CHARACTERS
from gill.errors import DataError, MissingFileError


def written(folder: Path, text: str) -> Path:
    path = folder / "captions.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_are_split_at_tabs_alone(tmp_path: Path) -> None:
    table = CaptionTable(written(tmp_path, 'caption\timage\na "quoted cat\tcat.png\nBäume, hoch\ttree\n'))
    assert [table.row(index) for index in range(len(table))] == [('a "quoted cat', "cat.png"), ("Bäume, hoch", "tree")]
    assert [table.line(index) for index in range(2)] == [2, 3]
    assert table.lengths.tolist() == [13, 11]


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    table = CaptionTable(written(tmp_path, "\ufeffcaption\timage\r\na cat\tcat.png\r\n"))
    assert table.row(0) == ("a cat", "cat.png")


def test_bad_rows_are_named_and_left_out(tmp_path: Path) -> None:
    long = "x" * (MAX_CAPTION_CHARACTERS + 1)
    rows = ["no tab", "\tlonely.png", "a\tb\tc", f"{long}\tlong.png", "", "good\tg.png"]
    table = CaptionTable(written(tmp_path, "\n".join(["caption\timage", *rows])))
    assert len(table) == 1
    assert [(bad.line, bad.source) for bad in table.bad_rows] == [
        (n, str(tmp_path / "captions.tsv")) for n in (2, 3, 4, 5)
    ]
    wanted = ("got 1 fields", "caption is empty", "got 3 fields", "characters")
    assert all(text in bad.reason for text, bad in zip(wanted, table.bad_rows, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("caption,image\na cat,cat.png\n", "captions.tsv:1: wanted the header caption<TAB>image.*commas"),
        ("caption\tfile\na\tb\n", "captions.tsv:1: wanted the header"),
        ("caption\timage\n", "no usable row"),
        ("", "captions.tsv:1"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CaptionTable(written(tmp_path, text))


def test_a_missing_file_says_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="header caption<TAB>image"):
        CaptionTable(tmp_path / "none.tsv")
