"""Every command in the README runs. Targets with SMOKE=1: the same code in the fewest steps."""

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkout import REPOSITORY, copy_repository, environment, run, run_python, shell_lines

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
INLINE = re.findall(r"`((?:python|make|gill|pip) [^`<>]+)`", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
SERVING = ("python demo/app_gradio.py", "make demo")
NOT_RUN = {"make test": "is what runs this"}
# The fewest steps and a small mapper for the command that trains at full scale, whose flags are otherwise the README's.
SHORT = {
    "torchrun": " --epochs 1 --steps-per-epoch 1 --batch-size 4 --val-batch-size 4 --val-steps-per-epoch 1 --workers 1"
    " --set mapper_width=32 mapper_layers=1",
}
# What those commands name that nobody can hand on, and what stands there instead: Flatland, in the same forms.
STAND_INS = {
    "facebook/opt-6.7b": "checkpoints/flatland/language",
    "openai/clip-vit-large-patch14": "checkpoints/flatland/clip",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "checkpoints/flatland/diffusion",
    "checkpoints/gill_opt": "checkpoints/gill_flatland",
    "sis": "data/flatland/sis",
    "VisualDialog": "data/flatland/VisualDialog",
    "data/cc3m": "data/flatland/data/cc3m",
    "dataset": "data/flatland/dataset",
}
pytestmark = pytest.mark.timeout(900)  # whole programs, on a machine that may have other things to do


def commands() -> list[str]:
    """Every shell command of the README once, in its order."""
    blocks = [line for kind, text in BLOCKS if kind != "python" for line in shell_lines(text)]
    return list(dict.fromkeys([*blocks, *INLINE]))


RUN = [line for line in commands() if line not in SERVING and not line.startswith(tuple(NOT_RUN))]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which commands may leave their files; `make train SMOKE=1` has run, and data lie."""
    place = copy_repository(tmp_path_factory.mktemp("checkout"))
    for command in ("make train TRAIN_RUN=flatland", "make flatland"):
        done = run(command, place)
        assert done.returncode == 0, done.stderr[-3000:]
    for name, real in STAND_INS.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).symlink_to(place / real)
    return place


def test_the_readme_has_commands() -> None:
    assert commands()[:2] == ["make train", "make test"]
    assert len(RUN) > 3


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_a_command_of_the_readme_runs(command: str, checkout: Path) -> None:
    done = run(command + next((flags for name, flags in SHORT.items() if command.startswith(name)), ""), checkout)
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "python"])
def test_python_of_the_readme_runs(text: str, checkout: Path) -> None:
    done = run_python(text, checkout)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def served(checkout: Path) -> Iterator[str]:
    """The address that the README's demo command serves."""
    words = [sys.executable, "-u", *SERVING[0].split()[1:]]
    with subprocess.Popen(words, cwd=checkout, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(found[0] for line in process.stdout if (found := re.search(r"http://[\d.:]+", line)))
        finally:
            process.terminate()


@pytest.mark.slow
def test_the_demo_is_served(served: str) -> None:
    assert SERVING[0] in commands()
    with urllib.request.urlopen(served, timeout=60) as page:
        assert page.status == 200 and b"gradio" in page.read().lower()
