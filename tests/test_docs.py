"""Documents that name files, code and tests name what exists."""

import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = sorted(
    path
    for place in ("*.md", "docs/**/*.md", "checkpoints/**/*.md", "dataset/*.md", "examples/**/*.md")
    for path in REPOSITORY.glob(place)
)


def read(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def table_rows(text: str) -> list[list[str]]:
    """Cells of every table row, headers included, rulers left out."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if not set(row[0]) <= {"-"}]


def missing_names(text: str) -> list[str]:
    """`name` in `file.py`, side by side in a sentence or in neighbouring cells, that is not there."""
    pairs = re.findall(r"`([\w.]+)`,?(?: \|| in) `([\w/]+\.py)`", text)
    found = []
    for name, path in pairs:
        if not (REPOSITORY / path).is_file():
            found.append(path)
        elif any(not re.search(rf"\b{part}\b", read(path)) for part in name.split(".")):
            found.append(f"{name} in {path}")
    return found


def missing_tests(text: str) -> list[str]:
    """`tests/file.py::test_name` that is not there."""
    found = []
    for path, _, name in (word.partition("::") for word in CODE.findall(text) if word.startswith("tests/")):
        if not (REPOSITORY / path).is_file() or (name and f"def {name}(" not in read(path)):
            found.append(f"{path}::{name}")
    return found


def test_the_paper_is_found_in_the_code() -> None:
    text = read("docs/PAPER.md")
    assert missing_names(text) == []
    named = [row for row in table_rows(text) if len(row) == 4 and row[3].startswith("`")]
    assert len(named) > 25
    assert len(re.findall(r"`[\w.]+` \| `[\w/]+\.py`", text)) == len(named)  # none escapes the check by its form


def test_every_fault_names_a_test_or_a_reason() -> None:
    text = read("docs/FAULTS.md")
    assert missing_tests(text) == []
    rows = [row for row in table_rows(text) if row[0] != "fault"]
    assert len(rows) > 35
    assert [row[0] for row in rows if len(row) != 2 or len(row[1]) < 20] == []


def anchors(text: str) -> set[str]:
    """Names of a document's headings, as forges make them."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(document: Path) -> list[str]:
    """Links of a document to files or headings that are not there; addresses are not tried."""
    found = []
    for link in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if ":" not in link and (
            not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8")))
        ):
            found.append(link)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_links_and_anchors_lead_somewhere(document: Path) -> None:
    assert dead_links(document) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`: c\n[1](none.md) [2](#a-b-c) [3](page.md#gone) [4](https://x.org/#y)\n```\n# d\n[5](no)\n```\n"
    )
    assert dead_links(page) == ["none.md", "page.md#gone"]


FILE = re.compile(r"\b((?:gill|scripts|evals|demo|dataset|tests|examples)/[\w/]+\.(?:py|md))\b")
PROGRAM = re.compile(r"^\s*(?:python|torchrun)\b.*?(\S+\.py)\b(.*)", re.MULTILINE)
HISTORY = ("LOG.md", "CHANGELOG.md")  # tell of what was


@cache
def flags() -> set[str]:
    """Every flag that a program of the repository defines, with `-` between words."""
    places = ("gill", "scripts", "evals", "demo", "examples")
    sources = [REPOSITORY / "main.py", *(path for place in places for path in (REPOSITORY / place).rglob("*.py"))]
    found = (re.findall(r'"(--[a-z][\w-]*)"', path.read_text(encoding="utf-8")) for path in sources)
    return {flag.replace("_", "-") for each in found for flag in each}


def missing_programs(text: str) -> list[str]:
    """Files and programs that a document names and that are not there, and flags that no program has."""
    found = [name for name in FILE.findall(text) if not (REPOSITORY / name).exists()]
    for code in [
        *re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL),
        *CODE.findall(FENCE.sub("", text)),
    ]:
        for program, words in PROGRAM.findall(code.replace("\\\n", " ")):
            found += [] if (REPOSITORY / program).is_file() else [program]
            found += [
                flag for flag in re.findall(r"(?<!\S)(--[a-z][\w-]*)", words) if flag.replace("_", "-") not in flags()
            ]
    return found


@pytest.mark.parametrize(
    "document",
    [d for d in DOCUMENTS if d.name not in HISTORY],
    ids=lambda path: path.relative_to(REPOSITORY).as_posix(),
)
def test_documents_name_files_programs_and_flags_that_exist(document: Path) -> None:
    assert missing_programs(document.read_text(encoding="utf-8")) == []


def test_a_wrong_program_or_flag_is_found() -> None:
    block = "```\npython main.py --preset debug \\\n    --batchsize 3\n```"
    text = f"`python mian.py --preset debug`\n{block}\nsee evals/scores.py"
    assert missing_programs(text) == ["evals/scores.py", "--batchsize", "mian.py"]


def test_a_wrong_name_is_found() -> None:
    assert missing_names("`GillTask` in `gill/models/gill/task.py`") == []
    assert missing_names("`GillTusk` in `gill/models/gill/task.py`") == ["GillTusk in gill/models/gill/task.py"]
    assert missing_names("| `x` | `gill/none.py` |") == ["gill/none.py"]
    assert missing_tests("`tests/test_docs.py::test_nothing`") == ["tests/test_docs.py::test_nothing"]
