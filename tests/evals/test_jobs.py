"""Commands of `make reproduce`: alone in this process, or several at once in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from evals.harness.jobs import Command, Workers
from gill.errors import TrainingError

PROGRAM = "scripts/process_p2_annotations.py"


def test_one_at_a_time_is_this_process(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def program(words: list[str]) -> int:
        seen.append(words)
        return 3 if words == ["b c"] else 0

    workers = Workers(1, {"some.py": program}, tmp_path / "logs")
    commands = [Command("some.py", (word,), word) for word in ("a", "b c", "d")]
    with pytest.raises(TrainingError, match="the same command goes on"):
        workers.carry_out(commands)
    assert seen == [["a"], ["b c"]], "what comes behind a failure is left"
    assert capsys.readouterr().out == "$ python some.py a\n$ python some.py 'b c'\n"


def test_several_at_once_are_processes_that_write_logs(tmp_path: Path) -> None:
    commands = [Command(PROGRAM, ("--help",), name) for name in ("one", "two", "three")]
    Workers(2, {}, tmp_path / "logs").carry_out(commands)
    for name in ("one", "two", "three"):
        assert "usage: process_p2_annotations.py" in (tmp_path / "logs" / f"{name}.log").read_text()


def test_a_command_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.tsv"
    commands = [Command(PROGRAM, (str(missing), str(tmp_path / "out.tsv")), name) for name in ("one", "two")]
    with pytest.raises(TrainingError, match=r"(?s)failed \(.*\.log\):.*nowhere\.tsv.*the same command goes on"):
        Workers(2, {}, tmp_path / "logs").carry_out(commands)
