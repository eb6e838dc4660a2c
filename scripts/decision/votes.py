"""Votes on prompts: read, agreed upon, written.

The files are tab-separated with a header: `Prompt Category Challenge Note Decisions`, the last column holding votes
separated by commas, or `Decision`, one agreed word.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gill.errors import DataError, MissingFileError
from gill.files import write_text

GENERATE, RETRIEVE, SAME = "gen", "ret", "same"
CHOICES = (GENERATE, RETRIEVE, SAME)
VOTES, AGREED = "Decisions", "Decision"
_PROMPT = "Prompt"


@dataclass(frozen=True)
class Row:
    """One line of a table: its number in the file and its cells by column."""

    line: int
    cells: Mapping[str, str]

    @property
    def prompt(self) -> str:
        """What a picture is wanted of."""
        return self.cells[_PROMPT]


def read_rows(path: Path, column: str = _PROMPT) -> list[Row]:
    """The rows of a table of prompts that has `column`.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is empty, has no such column, or a row with other cells than the header or without a prompt.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; give a tab-separated file with the columns {_PROMPT} and {column}")
    try:
        header, *lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from error
    names = header.split("\t")
    lacking = [name for name in (_PROMPT, column) if name not in names]
    if lacking:
        raise DataError(f"{path} has the columns {names}, wanted {', '.join(lacking)} too")
    rows = [_row(path, number, line, names) for number, line in enumerate(lines, 2)]
    if not rows:
        raise DataError(f"{path} has a header and no prompts")
    return rows


def _row(path: Path, number: int, line: str, names: Sequence[str]) -> Row:
    cells = line.split("\t")
    if len(cells) != len(names):
        raise DataError(f"{path}:{number}: {len(cells)} cells for {len(names)} columns; cells are separated by tabs")
    row = Row(number, dict(zip(names, cells, strict=True)))
    if not row.prompt.strip():
        raise DataError(f"{path}:{number}: the prompt is empty; remove the row or write one")
    return row


def agreed_choice(votes: Sequence[str]) -> str:
    """The choice that voters agree on, by the original's rule.

    A side wins with four votes, or with three where the other side has one at most; everything else is `same`.
    """
    count = Counter(votes)
    for side, other in ((GENERATE, RETRIEVE), (RETRIEVE, GENERATE)):
        if count[side] >= 4 or (count[side] == 3 and count[other] <= 1):
            return side
    return SAME


def read_votes(path: Path) -> list[tuple[Row, tuple[str, ...]]]:
    """Rows with their votes.

    Raises:
        DataError: as `read_rows`, or a word that is no vote; MissingFileError.
    """
    found = []
    for row in read_rows(path, VOTES):
        votes = tuple(word.strip() for word in row.cells[VOTES].split(","))
        if unknown := sorted(set(votes) - set(CHOICES)):
            raise DataError(f"{path}:{row.line}: unknown vote {unknown[0]!r}; votes are {', '.join(CHOICES)}")
        found.append((row, votes))
    return found


def read_decisions(path: Path) -> list[Row]:
    """Rows with an agreed choice.

    Raises:
        DataError: as `read_rows`, a word that is no choice, or votes that nobody has filtered; MissingFileError.
    """
    rows = read_rows(path)
    if AGREED not in rows[0].cells:
        hint = "votes; make decisions of them with scripts/process_p2_annotations.py"
        raise DataError(f"{path} holds {hint if VOTES in rows[0].cells else f'no column {AGREED}'}")
    for row in rows:
        if row.cells[AGREED] not in CHOICES:
            raise DataError(
                f"{path}:{row.line}: unknown decision {row.cells[AGREED]!r}; one of {', '.join(CHOICES)} is wanted"
            )
    return rows


def write_decisions(path: Path, rows: Sequence[tuple[Row, str]]) -> None:
    """Write rows with the column of votes replaced by the agreed choice, whole or not at all."""
    names = [name for name in rows[0][0].cells if name != VOTES]
    lines = ["\t".join([*(row.cells[name] for name in names), choice]) for row, choice in rows]
    write_text(path, "\n".join(["\t".join([*names, AGREED]), *lines]) + "\n")
