"""Picture panels of a validation: what was shown, fetched, drawn and said, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from gill.data import Source
from gill.training.validation import Validation
from gill.types import Illustrator

_CELL, _TEXT_WIDTH, _LINE = 128, 260, 12
_BACKGROUND, _INK = (255, 255, 255), (20, 20, 20)


@dataclass(frozen=True)
class PanelRow:
    """One line of a panel: pictures by column title (None = nothing to show), and words beside them."""

    pictures: dict[str, Image.Image | None]
    words: str


def validation_panel(
    result: Validation, source: Source, illustrator: Illustrator | None, num_rows: int, seed: int
) -> Image.Image | None:
    """The first pairs of a validation set: the true picture, the one fetched for its text, the one drawn from it.

    Returns:
        The panel; None when `num_rows` is 0.
    """
    count = min(num_rows, len(result.rows))
    if not count:
        return None
    fetched = [None] * count if result.text is None else _fetched(result, source, count)
    drawn = _drawn(result, illustrator, count, seed)
    rows = []
    for number in range(count):
        example = source.read(result.rows[number])
        said = f"says: {result.captions[number][0]}" if number < len(result.captions) else ""
        shown = example.image if isinstance(example.image, Image.Image) else None
        pictures = {"true": shown, "retrieved": fetched[number], "generated": drawn[number]}
        rows.append(PanelRow(pictures, f"{example.record.caption}\n{said}"))
    return draw_panel(rows)


def draw_panel(rows: Sequence[PanelRow]) -> Image.Image:
    """A white sheet with a title line, one row of square pictures for each entry, and its words on the right.

    Columns that are empty in every row are left out.
    """
    titles = [title for title in rows[0].pictures if any(row.pictures[title] is not None for row in rows)]
    width = len(titles) * (_CELL + 4) + _TEXT_WIDTH
    sheet = Image.new("RGB", (width, 16 + len(rows) * (_CELL + 4)), _BACKGROUND)
    ink = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        ink.text((column * (_CELL + 4) + 4, 2), title, fill=_INK)
    for number, row in enumerate(rows):
        top = 16 + number * (_CELL + 4)
        for column, title in enumerate(titles):
            picture = row.pictures[title]
            if picture is not None:
                sheet.paste(picture.convert("RGB").resize((_CELL, _CELL)), (column * (_CELL + 4), top))
        _write(ink, (len(titles) * (_CELL + 4) + 6, top), row.words)
    return sheet


def _write(ink: ImageDraw.ImageDraw, at: tuple[int, int], words: str) -> None:
    lines = [line for part in words.split("\n") for line in textwrap.wrap(part, 40)]
    for number, line in enumerate(lines[: _CELL // _LINE]):
        ink.text((at[0], at[1] + number * _LINE), line, fill=_INK)


def _fetched(result: Validation, source: Source, count: int) -> list[Image.Image | None]:
    """The best picture of the set for each of the first texts; None where only features are stored."""
    assert result.text is not None and result.image is not None
    best = (result.text[:count] @ result.image.T).argmax(1).tolist()
    pictures = [source.read(result.rows[row]).image for row in best]
    return [picture if isinstance(picture, Image.Image) else None for picture in pictures]


def _drawn(result: Validation, illustrator: Illustrator | None, count: int, seed: int) -> Sequence[Image.Image | None]:
    if illustrator is None or result.conditioning is None:
        return [None] * count
    conditioning = result.conditioning[:count]
    pictures = illustrator.draw(conditioning, [seed + number for number in range(len(conditioning))])
    return [*pictures, *[None] * (count - len(pictures))]
