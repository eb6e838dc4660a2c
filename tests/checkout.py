"""A copy of the repository, in which the commands of documents run as a user would type them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_COPIED = ("gill", "demo", "evals", "scripts", "tests", "docs")
_MODELS = ("flatland", "gill_flatland")


def copy_repository(place: Path) -> Path:
    """Code and documents copied, the models linked; returns the place."""
    for path in REPOSITORY.iterdir():
        if path.is_file():
            shutil.copy(path, place)
        elif path.name in _COPIED:
            shutil.copytree(path, place / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "checkpoints").mkdir()
    for name in _MODELS:
        (place / "checkpoints" / name).symlink_to(REPOSITORY / "checkpoints" / name)
    return place


def shell_lines(text: str) -> list[str]:
    """Commands of a block, comments left out and continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    plain = [re.sub(r"\s+#.*", "", " ".join(line.split())) for line in lines]
    return [line for line in plain if line and not line.startswith("#")]


def environment() -> dict[str, str]:
    """With this Python first on the path, and small everything."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "SMOKE": "1", "PYTHONWARNINGS": "ignore"}


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """A command as it stands; `make` takes this environment for its own and installs nothing."""
    if command.startswith("make "):
        command += f" VENV={sys.prefix} -o {sys.prefix}/.requirements-installed"
    return subprocess.run(command, shell=True, cwd=place, env=environment(), capture_output=True, text=True)


def run_python(text: str, place: Path) -> subprocess.CompletedProcess[str]:
    """A block of Python."""
    return subprocess.run([sys.executable, "-c", text], cwd=place, env=environment(), capture_output=True, text=True)
