"""What docs/FIRST_HOUR.md has a newcomer type works, in its order, in the fewest steps."""

import re
from pathlib import Path

import pytest

from gill.flatland import caption, draw, scenes
from tests.checkout import REPOSITORY, copy_repository, run, run_python, shell_lines

TEXT = (REPOSITORY / "docs/FIRST_HOUR.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
SHORT = " --epochs 1 --steps-per-epoch 1 -b 4 --val-batch-size 4 --val-steps-per-epoch 1"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def blocks(title: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```$", SECTIONS[title], re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with ten captioned pictures in `mine/`."""
    place = copy_repository(tmp_path_factory.mktemp("checkout"))
    (place / "mine").mkdir()
    rows = ["caption\timage"]
    for number, scene in enumerate(scenes("train", 10)):
        draw(scene).resize((200, 150)).save(place / "mine" / f"{number}.png")
        rows.append(f"{caption(scene)}\t{number}.png")
    (place / "mine/captions.tsv").write_text("\n".join(rows) + "\n")
    return place


def carry_out(block: str, place: Path) -> str:
    """What the commands of a block print."""
    said = ""
    for line in shell_lines(block):
        done = run(line + (SHORT if " main.py " in line else ""), place)
        assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
        said += done.stdout
    return said


def test_own_pictures_are_trained_on_captioned_and_compared(checkout: Path) -> None:
    (train,) = blocks("Train on your own folder of pictures")
    assert "runs/mine: finished" in carry_out(train, checkout)
    (describe,) = blocks("Caption your own picture")
    done = run_python(describe, checkout)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("['")
    (compare,) = blocks("Compare two models")
    assert "minus a:" in carry_out(compare, checkout)


def test_another_language_model_is_a_flag(checkout: Path) -> None:
    (train,) = blocks("Another language model")
    assert "runs/other_lm: finished" in carry_out(train, checkout)


def test_an_own_mapper_is_a_function_and_a_line(checkout: Path) -> None:
    mapper, train = blocks("Your own mapper")
    path = checkout / "gill/mappers/conditioning.py"
    line = re.findall(r'in `MAPPERS` the line `(".+)`\.', SECTIONS["Your own mapper"])[0]
    head, table, rest = path.read_text("utf-8").partition("MAPPERS: ")
    path.write_text(f"{head}{mapper}\n\n{table}{rest.replace('] = {', f'] = {{ {line}', 1)}", "utf-8")
    assert "runs/wide: finished" in carry_out(train, checkout)
