"""The console commands: programs beside the package, run where they lie.

    gill                        # lists them
    gill train --preset debug   # main.py; also gill-train
    gill demo                   # demo/app_gradio.py; also gill-demo
    gill extract_img_embs ...   # any other by its file's name

In a checkout they are main.py, demo/, evals/ and scripts/; an installed package has them in gill/_programs (setup.py).
"""

from __future__ import annotations

import ast
import difflib
import runpy
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = ("evals", "scripts")
_NAMED = {"train": "main.py", "demo": "demo/app_gradio.py"}


def main() -> int:
    """Run the program that the first word names, or list them; returns the exit status of the listing."""
    found = programs()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        width = max(map(len, found))
        lines = [f"  {name:<{width}}  {_first_line(path)}" for name, path in found.items()]
        sys.stdout.write("usage: gill PROGRAM ...; gill PROGRAM --help tells more\n\n" + "\n".join(lines) + "\n")
        return 0
    name = sys.argv.pop(1)
    if name not in found:
        near = difflib.get_close_matches(name, found, 1)
        sys.stderr.write(f"gill: no program {name!r}{f'; did you mean {near[0]}?' if near else ''} `gill` lists them\n")
        return 2
    _run(found[name])
    return 0


def train() -> None:
    """Run main.py with this process's arguments."""
    _run(programs()["train"])


def demo() -> None:
    """Run the demo with this process's arguments."""
    _run(programs()["demo"])


def programs() -> dict[str, Path]:
    """Every program by name: `train` and `demo`, the others by the names of their files."""
    installed = _PACKAGE / "_programs"
    root = installed if installed.is_dir() else _PACKAGE.parent
    others = sorted(path for folder in _FOLDERS for path in (root / folder).glob("*.py") if _is_program(path))
    return {**{name: root / path for name, path in _NAMED.items()}, **{path.stem: path for path in others}}


def _run(path: Path) -> None:
    """As `python PATH` would; processes that it spawns find it by its path."""
    sys.argv[0] = str(path)
    runpy.run_path(str(path), run_name="__main__")


def _is_program(path: Path) -> bool:
    return 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")


def _first_line(path: Path) -> str:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return said.partition("\n")[0]
