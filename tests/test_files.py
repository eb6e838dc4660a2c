"""A file is written whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from gill.files import write_array, write_json, write_text, write_whole


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_folders_are_made_and_nothing_else_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "ä\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"\xc3\xa4\n"
    assert names(tmp_path / "a") == ["b.txt"]


def test_the_old_file_stays_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(unfinished: Path) -> None:
        unfinished.write_text("half of the new")
        assert path.read_text() == "old"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_whole(path, fail)
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_an_array_keeps_its_name_and_values(tmp_path: Path) -> None:
    array = np.array([[1, 2], [3, 4]], dtype=np.float16)
    write_array(tmp_path / "rows", array)  # without an ending, as it was asked for
    found = np.load(tmp_path / "rows")
    assert found.dtype == np.float16 and (found == array).all() and names(tmp_path) == ["rows"]


def test_json_ends_in_a_line_end(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": [\n    1\n  ]\n}\n'
