"""The tables of `make reproduce`: what they train, and the document they are written into."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evals import reproduce
from evals.generate import main as generate
from evals.harness import results
from evals.harness.plans import TABLES, find_plan
from evals.harness.results import conditioning_distance, decision_table, write_section
from evals.reproduce import Size
from gill.errors import DataError
from gill.mappers import MapperSizes, build_mapper
from gill.models.gill import GillConfig
from gill.training import parse_command


@pytest.mark.parametrize("table", TABLES)
def test_every_training_is_a_command_that_parses(table: str) -> None:
    for variant in find_plan(table).variants:
        command = parse_command(["--preset", "flatland", *variant.flags])
        num_words = len(command.model.img_words.split())
        assert num_words < command.model.num_img_tokens  # [IMG0] starts from none
        if table != "main":
            assert command.recipe.num_epochs * command.recipe.steps_per_epoch == 400


def trained_numbers(model: GillConfig) -> int:
    """Of the mapper that a command line builds between Flatland's parts."""
    sizes = MapperSizes(192, 20, 40, 192, model.mapper_width, model.mapper_layers, model.mapper_heads)
    return sum(weight.numel() for weight in build_mapper(model.mapper, sizes).parameters())


def test_mappers_are_compared_at_equal_steps_and_at_equal_size() -> None:
    commands = {v.label: parse_command(["--preset", "flatland", *v.flags]).model for v in find_plan("mappers").variants}
    assert {model.num_img_tokens for model in commands.values()} == {20}
    sizes = {label: trained_numbers(model) for label, model in commands.items()}
    goal = sizes["gill_mapper, width 192"]
    enlarged = [size for label, size in sizes.items() if not label.endswith("width 192")]
    assert len(enlarged) == 2 and all(abs(size / goal - 1) < 0.02 for size in enlarged)


def test_a_section_leaves_what_is_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\nby hand\n")
    write_section(path, "main", ["first"])
    write_section(path, "tokens", ["other"])
    path.write_text(path.read_text() + "\nand below\n")
    write_section(path, "main", ["second"])
    text = path.read_text()
    assert "first" not in text
    assert [text.index(word) for word in ("by hand", "second", "other", "and below")] == sorted(
        text.index(word) for word in ("by hand", "second", "other", "and below")
    )
    path.write_text(text.replace("<!-- end of reproduce: main -->", ""))
    with pytest.raises(DataError, match="remove it"):
        write_section(path, "main", ["third"])


def test_the_distance_is_that_of_the_last_validation(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"val/conditioning": 9.0}\n{"loss": 1}\n{"val/conditioning": 4.5}\n')
    assert conditioning_distance(tmp_path) == 4.5
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n')
    with pytest.raises(DataError, match="no validation"):
        conditioning_distance(tmp_path)


def test_a_decision_stands_beside_constants_and_the_paper() -> None:
    score = {"value": 0.9, "low": 0.8, "high": 1.0}
    report: dict[str, Any] = {
        "f1": score,
        "num_generate": 6,
        "num_retrieve": 4,
        "constant_f1": {"generate": 0.375},
        "coin_f1": 0.45,
        "published": {"linear": 0.547},
    }
    text = "\n".join(decision_table([report, report]))
    assert "| GILL, seed 1 | 0.900 [0.800, 1.000] | 10 |" in text
    assert "| always generate | 0.375 | |" in text and "| *paper: linear* | 0.547 | |" in text


@pytest.fixture
def by_chance(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Trainings are noted and not carried out; chance answers for every model."""
    trained: list[list[str]] = []

    def train(words: list[str]) -> int:
        trained.append(words)
        folder = Path(words[words.index("--log-base-dir") + 1]) / words[words.index("--exp-name") + 1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text('{"val/conditioning": 4.5}\n')
        return 0

    def ask(words: list[str] | None) -> int:
        words = list(words or [])
        words[words.index("--system") + 1] = "chance"
        return generate(words)

    monkeypatch.setattr(reproduce, "train", train)
    monkeypatch.setattr(reproduce, "generate", ask)
    monkeypatch.setattr(reproduce, "SMOKE", Size(30, 2, 2))
    monkeypatch.setattr(results, "num_trainable", lambda run: 1234)
    return trained


def test_an_ablation_is_trained_asked_and_written(
    by_chance: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--smoke", "--table", "losses", "--out", str(tmp_path / "out"), "--jobs", "1"]
    assert reproduce.main(words) == 0
    assert [words[words.index("--seed") + 1] for words in by_chance] == ["0", "1", "0", "1"]
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| without |")]
    assert row.split(" | ")[1] == "1,234" and row.split(" | ")[3] == "4.500" and row.endswith("| 0.636 |")
    assert "![The retrieval loss](img/results_losses.png)" in text
    with Image.open(tmp_path / "out" / "img" / "results_losses.png") as plot:
        assert plot.width > 400
    assert (tmp_path / "out" / "losses.html").is_file()
    shown = capsys.readouterr().out
    assert "$ python main.py --preset flatland" in shown and "$ python evals/generate.py vist-retrieval" in shown


def test_the_main_tables_are_asked_and_written(
    by_chance: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of the plan: contexts below each other, baselines beside, differences, the claim, notes and plots."""

    def decide(words: list[str]) -> int:
        score = {"value": 0.5, "low": 0.4, "high": 0.6}
        told = {"f1": score, "num_generate": 1, "num_retrieve": 1, "constant_f1": {}, "coin_f1": 0.5, "published": {}}
        out = Path(words[words.index("--work") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(json.dumps(told))
        return 0

    whole = find_plan("main")
    tasks = {"vist-retrieval": ("1cap", "5cap"), "captioning": ("picture",)}
    baselines = (("clip", "frozen CLIP", "", ("vist-retrieval",)), ("chance", "chance", "", tuple(tasks)))
    monkeypatch.setattr(reproduce, "find_plan", lambda name: replace(whole, tasks=tasks, baselines=baselines))
    monkeypatch.setattr(reproduce, "train_decision", decide)
    assert reproduce.main(["--smoke", "--out", str(tmp_path / "out"), "--jobs", "1"]) == 0
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| 5cap | GILL | 2 | 2 | ")]
    assert row.count(" \u00b1 ") == row.count("[")  # an interval and the seeds' deviation in every cell
    assert "| 5cap | *paper: FROMAGe (FROMAGe, table 1)* | | | | 0.108 |" in text
    assert "`r@1` minus that of frozen CLIP" in text and "- `r@1` of GILL: 1cap < 5cap" in text
    assert "| picture | chance | 2 | 1 | " in text and "(--protocol paper): the texts of a story" in text
    assert "| GILL, seed 1 | 0.500 [0.400, 0.600] | 2 |" in text
    assert {path.name for path in (tmp_path / "out" / "img").iterdir()} == {
        "results_vist-retrieval.png",
        "results_captioning.png",
    }
