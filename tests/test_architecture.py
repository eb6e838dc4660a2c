"""The map of docs/DESIGN.md holds: who imports whom, how long things are, what may not be written.

Standard library only, nothing is imported from the package. Each rule is also shown a source that breaks it.
"""

import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.source_rules import (
    FAMILY,
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    MAY_IMPORT,
    ROOT,
    Source,
    broad_except_violations,
    docstring_violations,
    documented_table,
    import_violations,
    late_shim_violations,
    print_violations,
    private_name_violations,
    size_violations,
)

REPOSITORY = Path(__file__).resolve().parent.parent
OUTSIDE = ("scripts", "evals", "demo", "main.py")
ROOMS = frozenset(MAY_IMPORT) - {ROOT, FAMILY}

# Folders of machines that built or tested this; joined here, so that this file does not contain them.
MACHINE_FOLDERS = re.compile(r"(?<![\w.:/-])/(" + "|".join(("work", "root", "home")) + ")/")


@cache
def sources(*places: str) -> tuple[Source, ...]:
    """The Python files in these files and folders of the repository."""
    found = [
        path
        for place in places
        for path in ([REPOSITORY / place, *(REPOSITORY / place).rglob("*.py")])
        if path.is_file()
    ]
    return tuple(Source(path.relative_to(REPOSITORY).as_posix(), path.read_text("utf-8")) for path in sorted(found))


def families() -> frozenset[str]:
    """Folders of gill/models/."""
    return frozenset(path.name for path in (REPOSITORY / "gill/models").glob("[!_.]*") if path.is_dir())


def package_inits(source: Source) -> list[Source]:
    """The `__init__.py` of each package around a file, gill/ itself left out."""
    folders = [folder.as_posix() for folder in Path(source.path).parents][:-2]
    return [init for init in sources("gill") if init.path in {f"{folder}/__init__.py" for folder in folders}]


def test_imports_follow_the_table() -> None:
    found = [line for source in sources("gill") for line in import_violations(source, ROOMS, families())]
    assert not found, "\n".join(found)


def test_the_table_has_no_cycle() -> None:
    rooms = TopologicalSorter(MAY_IMPORT).static_order()  # raises CycleError
    assert set(rooms) == set(MAY_IMPORT)


def test_the_table_is_the_one_in_the_design() -> None:
    assert documented_table((REPOSITORY / "docs/DESIGN.md").read_text("utf-8")) == MAY_IMPORT


def test_torchvision_is_mended_before_anything_needs_it() -> None:
    found = [line for source in sources("gill") for line in late_shim_violations(source, package_inits(source))]
    assert not found, "\n".join(found)


def test_programs_use_public_names() -> None:
    found = [line for source in sources(*OUTSIDE) for line in private_name_violations(source)]
    assert not found, "\n".join(found)


def test_files_and_functions_stay_small() -> None:
    found = [line for source in sources("gill", "examples", "tests", *OUTSIDE) for line in size_violations(source)]
    assert not found, "\n".join(found)


def test_public_names_are_documented() -> None:
    found = [line for source in sources("gill", "examples", *OUTSIDE) for line in docstring_violations(source)]
    assert not found, "\n".join(found)


def test_the_library_does_not_print() -> None:
    found = [line for source in sources("gill") for line in print_violations(source)]
    assert not found, "\n".join(found)


def test_no_handler_catches_everything() -> None:
    found = [line for source in sources("gill", *OUTSIDE) for line in broad_except_violations(source)]
    assert not found, "\n".join(found)


def test_no_tracked_file_names_a_folder_of_one_machine() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True, text=True)
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    found = [
        f"{path.relative_to(REPOSITORY)}: {match[0]}"
        for path in paths
        if path.is_file() and (text := _text_of(path)) is not None and (match := MACHINE_FOLDERS.search(text))
    ]
    assert not found, "\n".join(found)


def _text_of(path: Path) -> str | None:
    """The text of a file; None for pictures, weights and other binary files."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return None


LIGHT = """
import importlib, sys
for name in ("torch", "torchvision", "transformers", "diffusers", "tokenizers"):
    sys.modules[name] = None  # as if not installed
for name in ("gill", "gill.errors", "gill.config", "gill.flatland"):
    importlib.import_module(name)
"""


def test_the_miniature_world_needs_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The rules, shown that they can fail.


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("gill/mappers/heads.py", "from gill.models.gill.task import Task", "mappers may not import models/gill"),
        ("gill/mappers/heads.py", "def f():\n    import gill.training.loop", "mappers may not import training"),
        ("gill/objectives/contrastive.py", "from gill import models", "objectives may not import models"),
        ("gill/objectives/contrastive.py", "import gill", f"objectives may not import {ROOT}"),
        ("gill/objectives/contrastive.py", "import transformers", "objectives may not import transformers"),
        ("gill/training/loop.py", "from gill.models import gill", "training may not import models/gill"),
        (
            "gill/models/lavit/task.py",
            "from gill.models.gill import GillTask",
            "models/lavit may not import models/gill",
        ),
        ("gill/models/gill/task.py", "from gill.training import fit", "models/gill may not import training"),
        ("gill/models/registry.py", "from gill.models.gill import GillTask", "models may not import models/gill"),
        ("gill/flatland/world.py", "import torch", "flatland may not import torch"),
        ("gill/flatland/world.py", "from torch.nn import Linear", "flatland may not import torch"),
        ("gill/data/reader.py", "from . import writer", "relative import"),
        ("gill/attic/old.py", "", "room 'attic' is not in the import table"),
        ("gill/attic.py", "", "room 'attic' is not in the import table"),
        ("gill/data/reader.py", "from gill.attic import old", "data may not import attic"),
    ],
)
def test_a_forbidden_import_is_found(path: str, text: str, message: str) -> None:
    found = list(import_violations(Source(path, text), ROOMS, frozenset({"gill", "lavit"})))
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "gill/models/gill/task.py",
            "from gill.models.gill import sequence\nfrom gill import errors, types\nimport torch",
        ),
        ("gill/models/__init__.py", "from gill.models.registry import find"),
        ("gill/training/loop.py", "from gill.models import find_family\nfrom gill.data import loader"),
        ("gill/flatland/world.py", "import math\nimport numpy as np\nfrom PIL import Image\nimport gill.errors"),
        ("gill/__init__.py", "from gill import models"),
    ],
)
def test_an_allowed_import_is_not(path: str, text: str) -> None:
    assert list(import_violations(Source(path, text), ROOMS, frozenset({"gill"}))) == []


def test_a_late_shim_is_found() -> None:
    user = Source("gill/backbones/vision.py", "from transformers import CLIPVisionModel")
    shim = "from gill._torchvision import define_missing_torchvision_ops\ndefine_missing_torchvision_ops()\n"
    own = "from gill.backbones.vision import tower\n"
    for init, num_found in ((own, 1), (own + shim, 1), (shim + own, 0)):
        assert len(list(late_shim_violations(user, [Source("gill/backbones/__init__.py", init)]))) == num_found
    assert len(list(late_shim_violations(user, []))) == 1


def test_long_files_and_functions_are_found() -> None:
    def function(num_lines: int) -> str:
        return "def f():\n" + "    pass\n" * (num_lines - 1)

    assert list(size_violations(Source("a.py", function(MAX_FUNCTION_LINES)))) == []
    assert len(list(size_violations(Source("a.py", function(MAX_FUNCTION_LINES + 1))))) == 1
    assert list(size_violations(Source("a.py", "pass\n" * MAX_FILE_LINES))) == []
    assert len(list(size_violations(Source("a.py", "pass\n" * (MAX_FILE_LINES + 1))))) == 1


def test_what_is_not_documented_is_found() -> None:
    text = '"""A file."""\nclass A:\n    """A class."""\n    def f(self): ...\n    def _g(self): ...\ndef h(): ...'
    assert [line.rpartition(": ")[2] for line in docstring_violations(Source("a.py", text))] == [
        "f is public and has no docstring",
        "h is public and has no docstring",
    ]
    assert len(list(docstring_violations(Source("a.py", "import ast")))) == 1
    assert list(docstring_violations(Source("a.py", ""))) == []


def test_forbidden_words_are_found() -> None:
    assert len(list(print_violations(Source("a.py", "print('x')\nlog.print('y')")))) == 1
    handler = "try:\n    pass\nexcept{}:\n    pass\n"
    for caught in ("", " Exception", " (OSError, Exception)", " BaseException as error"):
        assert len(list(broad_except_violations(Source("a.py", handler.format(caught))))) == 1
    assert list(broad_except_violations(Source("a.py", handler.format(" (OSError, ValueError)")))) == []
    assert len(list(private_name_violations(Source("scripts/a.py", "from gill.config import _hidden, public")))) == 1


def test_a_machine_folder_is_found() -> None:
    folder = "/".join(("", "work", "main"))
    assert MACHINE_FOLDERS.search(f"cd {folder}")
    assert MACHINE_FOLDERS.search(f'"{folder}"')
    assert not MACHINE_FOLDERS.search(f"https://example.org{folder} and notes{folder}")


def test_the_documented_table_is_read() -> None:
    markdown = "| room | what | may import |\n|---|---|---|\n| `a`, `b/` | x | nothing |\n| `c` | x | `a`, `b` |"
    assert documented_table(markdown) == {"a": frozenset(), "b": frozenset(), "c": frozenset({"a", "b"})}
