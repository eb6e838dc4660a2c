"""The page of runs, and the papers' rows beside ours."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from evals.generate import main as generate
from evals.harness.published import published_rows
from evals.harness.tables import growth, table
from evals.harness.tasks import TASKS
from evals.report import as_html
from evals.report import main as report
from evals.score import load_groups
from gill.metrics import Estimate
from tests.evals.benchmark_files import write_captions, write_coco, write_dialogues, write_questions, write_stories

CLIP = "checkpoints/flatland/clip"


def test_papers_rows_stand_where_they_were_published() -> None:
    assert published_rows("vist-generation", "5cap4img", "clip_similarity") == [("GILL (GILL, table 1)", 0.641)]
    assert published_rows("vist-generation", "2cap1img", "clip_similarity") == []
    assert dict(published_rows("vist-retrieval", "5cap4img", "r@1"))["FROMAGe (FROMAGe, table 1)"] == 0.182


def test_a_page_holds_every_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = write_captions(tmp_path / "c")
    folders = {"vist": write_stories(tmp_path / "s"), "visdial": write_dialogues(tmp_path / "d")}
    folders |= {"captioning": captions, "cc3m": captions}
    folders |= {"coco": write_coco(tmp_path / "coco"), "vqa": write_questions(tmp_path / "vqa")}
    runs = []
    for task in TASKS:
        kind = task.split("-")[0]
        for label in ("one", "other"):
            runs.append(tmp_path / f"{task}-{label}")
            words = ["--data", str(folders[kind]), "--system", "chance", "--label", label, "--protocol", "paper"]
            assert generate([task, str(runs[-1]), *words]) == 0
    out = tmp_path / "page.html"
    assert report([*map(str, runs), "--clip", CLIP, "--against", "other", "--out", str(out)]) == 0
    page = out.read_text()
    assert all(f"<h2>{task}</h2>" in page for task in TASKS)
    assert f"{len(runs)} runs" in capsys.readouterr().out
    assert "<script" not in page and "http" not in page  # whole without the network
    assert "GILL, table 1" in page and "minus that of other" in page and "only the last one&#x27;s prompt" in page
    sheets = re.findall(r"<tr><th>input</th>(.*?)</tr>", page)
    assert len(sheets) == len(TASKS)
    titles = ("truth", "one (paper protocol)", "other (paper protocol)")
    assert all(f"<th>{title}</th>" in sheet for sheet in sheets for title in titles)
    assert "<li>the papers&#x27; own rows (--protocol paper): pictures are squashed" in page
    assert "<li>one: no model, noise of seed 42</li>" in page
    assert f"clip_similarity by {CLIP}." in page and "The papers&#x27; rows are of photographs" in page
    assert "`" not in page
    assert page.count("data:image/png;base64,") > 4 * len(sheets)


def test_a_page_does_without_a_picture_that_was_lost(tmp_path: Path) -> None:
    folder = write_stories(tmp_path / "s")
    run, out = tmp_path / "run", tmp_path / "page.html"
    assert generate(["vist-generation", str(run), "--data", str(folder), "--system", "chance"]) == 0
    (folder / "val_images" / "10000004.png").unlink()  # the first story's last picture
    (folder / "val_images" / "10000000.png").write_bytes(b"no picture")
    assert report([str(run), "--clip", CLIP, "--out", str(out)]) == 0
    page = out.read_text()
    assert page.count("<td class='words'>lost</td>") == 2 and "cannot be read any more" in page


@dataclass
class OneMeasure:
    """What `growth` asks of a group."""

    context: str
    low: float
    high: float
    label: str = "ours"
    task: str = "visdial-retrieval"

    def estimate(self, name: str) -> Estimate:
        assert name == "r@1"
        return Estimate((self.low + self.high) / 2, self.low, self.high, math.nan, 500, 3)


def test_more_context_counts_as_better_only_where_intervals_are_apart() -> None:
    other = OneMeasure("5", 0.0, 1.0, label="chance")
    apart = [OneMeasure("10", 0.4, 0.5), OneMeasure("1", 0.0, 0.1), other, OneMeasure("5", 0.2, 0.3)]
    assert growth(apart, "ours", ["r@1"]) == ["- `r@1` of ours: 1 < 5 < 10"]  # type: ignore[arg-type]
    mixed = [OneMeasure("1", 0.0, 0.2), OneMeasure("5", 0.2, 0.3), OneMeasure("10", 0.1, 0.15)]
    (line,) = growth(mixed, "ours", ["r@1"])  # type: ignore[arg-type]
    assert line.endswith("1 < 5 < 10, but 5 is not told apart from 1 and 10 is worse than 5")


def test_cells_count_what_was_asked(tmp_path: Path) -> None:
    folder = write_stories(tmp_path / "s")
    assert generate(["vist-retrieval", str(tmp_path / "run"), "--data", str(folder), "--system", "chance"]) == 0
    lines = table(load_groups([tmp_path / "run"], CLIP), "vist-retrieval")
    assert lines[2].startswith("| 5cap4img | chance | 6 | 1 | 30 | ")
    assert "*paper: GILL (GILL, table 5)*" in "\n".join(lines)
    assert as_html(lines).count("<tr>") == len(lines) - 1
