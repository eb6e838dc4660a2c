"""The rules of docs/DESIGN.md for source files, as functions from a source to its violations.

Sources are read with `ast` and never run, so a file that cannot be imported is checked all the same.
`test_architecture.py` applies them to the repository and, to show that they can fail, to made-up sources.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 70

PACKAGE = "gill"
ROOT = "__init__"  # gill/__init__.py; every import passes through it, so it may not pull in what the light rooms avoid
SHIM = "gill._torchvision"
FAMILY = "models/*"  # every folder of gill/models/


# Which rooms a room may import, beside itself. The same table is in docs/DESIGN.md, with the reasons.
_ROWS = {
    "errors": "",
    "files": "",
    "_torchvision": "",
    "types": "errors",
    "config": "errors",
    "distributed": "errors",
    "metrics": "errors",
    "parameters": "errors",
    "sampling": "errors",
    "mappers": "errors",
    "objectives": "errors",
    "flatland": "errors files",
    "data": "errors files types flatland",
    "retrieval": "errors files types",
    "backbones": "errors types config parameters _torchvision",
    FAMILY: "errors files types config distributed metrics parameters sampling mappers objectives data retrieval "
    "flatland backbones _torchvision",
    "models": "errors types config",
    "training": "errors files types config distributed metrics parameters data models",
    "doctor": "errors data models backbones parameters training",
    "utils": "retrieval",
    "commands": "",
    ROOT: "_torchvision models",
}
MAY_IMPORT: Mapping[str, frozenset[str]] = {room: frozenset(names.split()) for room, names in _ROWS.items()}

# Rooms that are kept light or plain: what they may import from outside, beside the standard library.
THIRD_PARTY: Mapping[str, frozenset[str]] = {
    ROOT: frozenset(),
    "errors": frozenset(),
    "files": frozenset({"numpy"}),
    "config": frozenset(),
    "_torchvision": frozenset({"torch", "torchvision"}),
    "flatland": frozenset({"numpy", "PIL"}),
    "mappers": frozenset({"torch"}),
    "objectives": frozenset({"torch"}),
}

# Libraries that fail to import beside a broken torchvision.
NEED_TORCHVISION = frozenset({"torchvision", "transformers", "diffusers", "open_clip"})


@dataclass(frozen=True)
class Source:
    """A Python file: its place in the repository, with forward slashes, and its text."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """The parsed text."""
        return ast.parse(self.text, self.path)

    @property
    def room(self) -> str | None:
        """The room of gill/ the file belongs to; None outside the package."""
        package, *parts = PurePosixPath(self.path).with_suffix("").parts
        return room_of(parts, is_folder=len(parts) > 2) if package == PACKAGE else None


@dataclass(frozen=True)
class Import:
    """One imported name: `module` as written, `name` after `from ... import`, or ""."""

    module: str
    name: str
    line: int
    level: int = 0

    @property
    def dotted(self) -> str:
        """Module and name in one."""
        return f"{self.module}.{self.name}" if self.name else self.module


def room_of(parts: list[str], is_folder: bool = False) -> str:
    """The room of a path or dotted name below `gill`, split at its separators.

    `is_folder`: whether the second part, if any, is known to be a folder, which makes it a family under `models`.
    """
    if not parts:
        return ROOT
    if parts[0] == "models" and len(parts) > 1 and is_folder:
        return f"models/{parts[1]}"
    return parts[0]


def imports(tree: ast.AST) -> Iterator[Import]:
    """Every import of a file, in functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, "", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (Import(node.module or "", alias.name, node.lineno, node.level) for alias in node.names)


def allowed_rooms(room: str) -> frozenset[str]:
    """What `room` may import, itself included.

    Raises:
        KeyError: the table does not know the room.
    """
    key = FAMILY if room.startswith("models/") else room
    return MAY_IMPORT[key] | {room}


def import_violations(source: Source, known_rooms: frozenset[str], families: frozenset[str]) -> Iterator[str]:
    """Imports that the table does not allow.

    Args:
        source: a file of gill/.
        known_rooms: the direct children of gill/ that exist or are in the table; any other `gill.x` is a name.
        families: folders of gill/models/.
    """
    room = source.room
    assert room is not None, f"{source.path} is outside {PACKAGE}/"
    if room != ROOT and room not in MAY_IMPORT and not room.startswith("models/"):
        yield f"{source.path}: room {room!r} is not in the import table; add it there and in docs/DESIGN.md"
        return
    for item in imports(source.tree):
        where = f"{source.path}:{item.line}"
        if item.level:
            yield f"{where}: relative import; write the full name, gill.room.module"
        elif item.module.partition(".")[0] == PACKAGE:
            target = _target_room(item, known_rooms, families)
            if target not in allowed_rooms(room):
                yield f"{where}: {room} may not import {target}; it may import {sorted(allowed_rooms(room) - {room})}"
        elif (top := item.module.partition(".")[0]) not in THIRD_PARTY.get(room, {top}) | sys.stdlib_module_names:
            yield f"{where}: {room} may not import {top}; outside the standard library only {sorted(THIRD_PARTY[room])}"


def _target_room(item: Import, known_rooms: frozenset[str], families: frozenset[str]) -> str:
    parts = item.dotted.split(".")[1:]
    if item.module == PACKAGE and item.name not in known_rooms:
        return ROOT  # `import gill`, or a name that gill/__init__.py offers
    return room_of(parts, is_folder=len(parts) > 1 and parts[1] in families)


def late_shim_violations(source: Source, package_inits: list[Source]) -> Iterator[str]:
    """Files that import what needs torchvision though no package they are in has called the shim before.

    Args:
        source: a file of gill/.
        package_inits: the `__init__.py` of each package around it below gill/.
    """
    needs = [item for item in imports(source.tree) if item.module.partition(".")[0] in NEED_TORCHVISION]
    if source.room == "_torchvision" or not needs:
        return
    if not any(_calls_shim(package.tree) for package in package_inits):
        yield (
            f"{source.path}:{needs[0].line}: imports {needs[0].module}, but no __init__.py around it starts with "
            "`from gill._torchvision import define_missing_torchvision_ops` and a call of it"
        )


def _calls_shim(tree: ast.Module) -> bool:
    """Whether the shim is called at top level before anything of gill but the shim is imported."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module != SHIM:
            return False
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            name = node.value.func
            if isinstance(name, ast.Name) and name.id == "define_missing_torchvision_ops":
                return True
    return False


def private_name_violations(source: Source) -> Iterator[str]:
    """Uses of private modules and names of gill/ from outside; the shim has to be called by programs too."""
    for item in imports(source.tree):
        parts = item.dotted.split(".")
        if (
            parts[0] == PACKAGE
            and item.module != SHIM
            and any(part.startswith("_") and not part.startswith("__") for part in parts)
        ):
            yield f"{source.path}:{item.line}: {item.dotted} is private; use what its room offers"


def size_violations(source: Source) -> Iterator[str]:
    """Files and functions that are too long to hold in the head."""
    num_lines = len(source.text.splitlines())
    if num_lines > MAX_FILE_LINES:
        yield f"{source.path}: {num_lines} lines, at most {MAX_FILE_LINES}; it is two things"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{source.path}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}"


def docstring_violations(source: Source) -> Iterator[str]:
    """Files, and public classes, functions and methods of them, that do not say what they are."""
    if source.tree.body and ast.get_docstring(source.tree) is None:
        yield f"{source.path}:1: the file does not say what it is for"
    yield from _undocumented(source.path, source.tree)


def _undocumented(path: str, owner: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in owner.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield f"{path}:{node.lineno}: {node.name} is public and has no docstring"
            if isinstance(node, ast.ClassDef):
                yield from _undocumented(path, node)


def print_violations(source: Source) -> Iterator[str]:
    """Calls of print."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{source.path}:{node.lineno}: print; a library logs"


def broad_except_violations(source: Source) -> Iterator[str]:
    """Handlers that also catch what nobody expected."""
    broad = {"Exception", "BaseException"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if node.type is None or any(isinstance(name, ast.Name) and name.id in broad for name in caught):
                yield f"{source.path}:{node.lineno}: too broad; name the errors that are expected"


def documented_table(markdown: str) -> dict[str, frozenset[str]]:
    """Read the import table out of docs/DESIGN.md: rows `| rooms | what | may import |`, rooms in backticks."""
    _, _, below = markdown.partition("| may import |\n")
    rows = [line.strip("|").split("|") for line in below.partition("\n\n")[0].splitlines()]
    return {room: frozenset(_names(may_import)) for rooms, _, may_import in rows for room in _names(rooms)}


def _names(cell: str) -> list[str]:
    """The words in backticks of a cell; folders end in a slash there."""
    return [word.rstrip("/") for word in cell.split("`")[1::2]]
