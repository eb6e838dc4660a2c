"""Pictures side by side in a file."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def save_row(pictures: Sequence[Image.Image], out: Path) -> None:
    """Write pictures, as high as the highest, from left to right; folders are made."""
    row = Image.new("RGB", (sum(picture.width for picture in pictures), max(picture.height for picture in pictures)))
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width
    out.parent.mkdir(parents=True, exist_ok=True)
    row.save(out)
