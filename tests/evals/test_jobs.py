"""Commands of `make reproduce`: alone in this process, or several at once in processes of their own."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evals.harness import jobs
from evals.harness.jobs import Command, carry_out_apart, carry_out_here
from gill.errors import TrainingError


def program(folder: Path, text: str) -> str:
    """A program by its whole path."""
    path = folder / "program.py"
    path.write_text(text)
    return str(path)


def commands(path: str, *words: str) -> list[Command]:
    return [Command(path, (word,), word) for word in words]


def test_one_at_a_time_is_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[list[str]] = []

    def some(words: list[str]) -> int:
        seen.append(words)
        return 3 if words == ["b c"] else 0

    with pytest.raises(TrainingError, match="the same command goes on"):
        carry_out_here(commands("some.py", "a", "b c", "d"), {"some.py": some})
    assert seen == [["a"], ["b c"]], "what comes behind a failure is left"
    assert capsys.readouterr().out == "$ python some.py a\n$ python some.py 'b c'\n"


def test_several_at_once_are_processes_that_write_logs(tmp_path: Path) -> None:
    path = program(tmp_path, "import os, sys\nprint(sys.argv[1], os.getpid())\n")
    for _ in range(2):
        carry_out_apart(commands(path, "one", "two", "three"), 2, tmp_path / "logs")
    logs = {name: (tmp_path / "logs" / f"{name}.log").read_text().splitlines() for name in ("one", "two", "three")}
    for name, lines in logs.items():
        assert lines[0] == lines[2] == f"$ python {path} {name}", "an earlier log is kept"
        assert lines[1].startswith(f"{name} ")
    assert len({line for lines in logs.values() for line in lines[1::2]} | {str(os.getpid())}) == 7


def test_a_command_waits_for_those_it_needs(tmp_path: Path) -> None:
    """Others go on meanwhile; after a failure what needs it does not begin."""
    text = f"""
import pathlib, sys, time
folder = pathlib.Path({str(tmp_path)!r})
if sys.argv[1] == "slow":
    time.sleep(1.5)
print(sorted(each.name for each in folder.glob("*.done")))
(folder / (sys.argv[1] + ".done")).touch()
sys.exit(sys.argv[1] == "broken")
"""
    slow, other, needy, broken = commands(program(tmp_path, text), "slow", "other", "needy", "broken")
    carry_out_apart([slow, other, replace(needy, after=("slow", "other"))], 2, tmp_path / "logs")
    seen = {name: (tmp_path / "logs" / f"{name}.log").read_text().splitlines()[1] for name in ("slow", "needy")}
    assert seen == {"slow": "['other.done']", "needy": "['other.done', 'slow.done']"}
    with pytest.raises(TrainingError, match=r"1 of 2 commands"):
        carry_out_apart([broken, replace(needy, after=("broken",))], 2, tmp_path / "failed")
    assert [log.stem for log in (tmp_path / "failed").iterdir()] == ["broken"]


def test_each_command_has_its_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, "import os\nprint(os.environ['OMP_NUM_THREADS'])\n")
    monkeypatch.setattr(jobs, "_num_cores", lambda: 8)
    for asked, wanted in (("", "4"), ("16", "4"), ("1", "1")):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        carry_out_apart(commands(path, "a", "b"), 2, tmp_path / "logs")
        assert (tmp_path / "logs" / "b.log").read_text().splitlines()[-1] == wanted


def test_nothing_begins_after_a_failure_and_its_last_words_are_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = program(tmp_path, "import sys\nprint('because of', sys.argv[1])\nsys.exit(sys.argv[1] == 'b')\n")
    with pytest.raises(TrainingError, match=r"1 of 9 commands failed.*the same command goes on"):
        carry_out_apart(commands(path, *"abcdefghi"), 1, tmp_path / "logs")
    assert "failed with status 1" in (told := capfd.readouterr().err) and "because of b" in told
    assert sorted(log.stem for log in (tmp_path / "logs").iterdir()) == ["a", "b"]


def test_a_command_that_is_killed_is_told_apart(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = program(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(TrainingError):
        carry_out_apart(commands(path, "a"), 2, tmp_path / "logs")
    assert "was ended by SIGKILL; where memory ran out, fewer --jobs" in capfd.readouterr().err


def test_a_signal_to_end_reaches_the_processes(tmp_path: Path) -> None:
    """They must not live on and be doubled by the command that goes on."""
    path = program(tmp_path, "import time\nprint('begun', flush=True)\ntime.sleep(60)\n")

    def end_once_begun() -> None:
        log = tmp_path / "logs" / "a.log"
        while not (log.is_file() and "begun" in log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_once_begun).start()
    before, start = signal.getsignal(signal.SIGTERM), time.monotonic()
    with pytest.raises(TrainingError, match="failed"):
        carry_out_apart(commands(path, "a", "b", "c"), 2, tmp_path / "logs")
    assert time.monotonic() - start < 50, "the processes did not sleep on"
    assert not (tmp_path / "logs" / "c.log").exists() and signal.getsignal(signal.SIGTERM) is before
