"""List every source file with the first line of its docstring, as a page.

python scripts/list_files.py docs/LAYOUT.md
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill.errors import DataError
from gill.files import write_text
from scripts.command import carry_out

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("gill", "evals", "demo", "examples", "scripts", "tests")
_OPENING = """# Layout

Every source file in a line, its own first one. `python scripts/list_files.py docs/LAYOUT.md` writes this page.
"""


def main(words: list[str] | None = None) -> int:
    """Write the page; returns the exit status."""
    options = _parse(words)
    return carry_out("list_files", lambda: _write(options.page))


def page() -> str:
    """The page as it should be.

    Raises:
        DataError: a file without a docstring.
    """
    return "\n".join([_OPENING, *(line for folder, files in _folders() for line in _section(folder, files))])


def _write(path: Path) -> str:
    write_text(path, page())
    return f"{path}: {sum(1 for _ in _sources())} files"


def _sources() -> Iterator[Path]:
    """Python files that say something, the root's first."""
    found = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    return (path.relative_to(ROOT) for path in sorted(found, key=_place) if path.read_bytes().strip())


def _place(path: Path) -> tuple[int, Path, str]:
    parts = path.relative_to(ROOT).parts
    return ROOMS.index(parts[0]) + 1 if len(parts) > 1 else 0, path.parent, path.name


def _folders() -> Iterator[tuple[Path, list[Path]]]:
    return ((folder, list(files)) for folder, files in groupby(_sources(), key=lambda path: path.parent))


def _section(folder: Path, files: list[Path]) -> Iterator[str]:
    yield f"## {folder if folder.parts else 'top level'}\n\n| file | what |\n|---|---|"
    yield from (f"| [{path.name}](../{path.as_posix()}) | {_first_line(path)} |" for path in files)
    yield ""


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    if not text:
        raise DataError(f"{path} has no docstring; say in a line what it is for")
    return text.splitlines()[0].replace("|", "\\|")


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="the Markdown file to write")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
