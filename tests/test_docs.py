"""Documents that name files, code and tests name what exists."""

import re
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


def test_documents_for_users_name_files_that_exist() -> None:
    for document in ("docs/FORMATS.md", "docs/MIGRATION.md", "docs/FAQ.md", "docs/FIRST_HOUR.md", "docs/INSTALL.md"):
        text = read(document)
        named = re.findall(r"\b((?:gill|scripts|evals|demo|dataset|tests)/[\w/]+\.(?:py|md))\b", text)
        assert [name for name in named if not (REPOSITORY / name).exists()] == [], document


def test_a_wrong_name_is_found() -> None:
    assert missing_names("`GillTask` in `gill/models/gill/task.py`") == []
    assert missing_names("`GillTusk` in `gill/models/gill/task.py`") == ["GillTusk in gill/models/gill/task.py"]
    assert missing_names("| `x` | `gill/none.py` |") == ["gill/none.py"]
    assert missing_tests("`tests/test_docs.py::test_nothing`") == ["tests/test_docs.py::test_nothing"]
