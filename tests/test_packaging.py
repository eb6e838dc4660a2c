"""`pip install .` gives the package, its types and its commands, and no top-level names but `gill`."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = ("gill", "demo", "evals", "scripts", "main.py", "setup.py", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed package, built without network or isolation."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for path in [*(REPOSITORY / name for name in SHIPPED), *REPOSITORY.glob("requirements*.txt")]:
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, source / path.name)
    built = subprocess.run([sys.executable, "-c", BUILD, str(site)], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = site.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def command(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What the console command of the installed package does, from a folder that holds nothing."""
    code = "import sys; from gill.commands import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    words_ = [sys.executable, "-P", "-c", code, *words]
    return subprocess.run(words_, cwd=site.parent, env=environment, capture_output=True, text=True)


def test_only_the_package_is_installed_typed_and_whole(site: Path) -> None:
    assert {path.name for path in site.iterdir() if path.is_dir()} - {"gill"} == {"gill-0.1.0.dist-info"}
    assert (site / "gill" / "py.typed").is_file()
    ours = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "gill").rglob("*.py")}
    assert ours <= {path.relative_to(site).as_posix() for path in site.rglob("*.py")}
    points = next(site.glob("*.dist-info/entry_points.txt")).read_text()
    assert set(re.findall(r"^(\S+) = ", points, re.M)) == {"gill", "gill-train", "gill-demo"}


def test_an_installed_command_runs_the_same_program(site: Path) -> None:
    listing = command(site)
    assert listing.returncode == 0, listing.stderr
    assert "  train" in listing.stdout and "  extract_img_embs" in listing.stdout
    planned = command(site, "train", "--preset", "debug", "--dry-run")
    assert planned.returncode == 0, planned.stderr[-2000:]
    assert '"preset": "debug"' in planned.stdout
    unknown = command(site, "trian")
    assert unknown.returncode == 2 and "did you mean train?" in unknown.stderr


def test_extras_and_requirements_agree() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    developing = (REPOSITORY / "requirements-dev.txt").read_text()
    assert all(requirement in developing for requirement in extras["demo"]), "the page is tested"
    needed = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pinned = [line.split()[0] for line in needed if "==" in line.partition("#")[0]]
    assert [name.partition("==")[0] for name in pinned] == ["torch", "torchvision"], "ranges elsewhere"
