"""Every command in the README runs. Targets with SMOKE=1: the same code in the fewest steps."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
INLINE = re.findall(r"`((?:python|make|gill|pip) [^`<>]+)`", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
SERVING = ("python demo/app_gradio.py", "make demo")
NOT_RUN = {  # by how they begin, and why
    "make test": "is what runs this",
    "make train": "with SMOKE=1, before everything else",
    "python evals/generate.py": "needs VIST, or minutes on Flatland; tests/evals runs it on files of the same form",
    "python evals/score.py": "of the runs that evals/generate.py makes; the same",
    "torchrun": "needs released weights; tests/test_original_commands.py runs its like on small ones",
}
pytestmark = pytest.mark.timeout(900)  # whole programs, on a machine that may have other things to do
COPIED = ("gill", "demo", "evals", "scripts", "dataset", "tests", "docs")


def commands() -> list[str]:
    """Every shell command of the README once, in its order; comments and continued lines folded."""
    lines = [line for kind, text in BLOCKS if kind != "python" for line in text.replace("\\\n", " ").splitlines()]
    plain = [re.sub(r"\s+#.*", "", " ".join(line.split())) for line in [*lines, *INLINE]]
    return list(dict.fromkeys(line for line in plain if line and not line.startswith("#")))


RUN = [line for line in commands() if line not in SERVING and not line.startswith(tuple(NOT_RUN))]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which commands may leave their files; `make train SMOKE=1` has run."""
    place = tmp_path_factory.mktemp("checkout")
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy(path, place)
        elif path.name in COPIED:
            shutil.copytree(path, place / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "checkpoints").symlink_to(REPOSITORY / "checkpoints")
    done = run("make train TRAIN_RUN=flatland", place)
    assert done.returncode == 0, done.stderr[-3000:]
    return place


def environment() -> dict[str, str]:
    """With this Python first on the path, and small everything."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SMOKE": "1", "PYTHONWARNINGS": "ignore"}


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """A command as it stands; `make` takes this environment for its own and installs nothing."""
    if command.startswith("make "):
        command += f" VENV={sys.prefix} -o {sys.prefix}/.requirements-installed"
    return subprocess.run(command, shell=True, cwd=place, env=environment(), capture_output=True, text=True)


def test_the_readme_has_commands() -> None:
    assert commands()[:2] == ["make train", "make test"]
    assert len(RUN) > 3


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN)
def test_a_command_of_the_readme_runs(command: str, checkout: Path) -> None:
    done = run(command, checkout)
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "python"])
def test_python_of_the_readme_runs(text: str, checkout: Path) -> None:
    done = subprocess.run([sys.executable, "-c", text], cwd=checkout, env=environment(), capture_output=True, text=True)
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
