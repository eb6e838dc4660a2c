"""Picture files: found by name, opened with limits, always RGB."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from gill.errors import NOT_A_PICTURE, DataError, MissingFileError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif")
MAX_PIXELS = 64_000_000  # a picture larger than 8000 x 8000 is a mistake or an attack, not an illustration

# A vision tower makes the shorter side as long as it reads, and cuts the longer one afterwards: of a strip of 1 by a
# million pixels, 224 by 224 million are made first.
MAX_RATIO = 100


def find_image(folder: Path, name: str, place: str) -> Path:
    """The file of a picture whose name may lack its extension.

    Args:
        place: file and line that ask for it, for the message.

    Raises:
        MissingFileError: none of the candidates is there.
    """
    path = folder / name
    if path.is_file():
        return path
    for extension in EXTENSIONS:
        candidate = path.with_name(path.name + extension)
        if candidate.is_file():
            return candidate
    raise MissingFileError(
        f"{place}: no picture {path}, nor with {', '.join(EXTENSIONS)}; put it there or set --image-dir"
    )


def open_image(
    path: Path, place: str, content: bytes | None = None, formats: tuple[str, ...] | None = None
) -> Image.Image:
    """A decoded RGB picture.

    Args:
        content: of the picture, when `path` is the shard it was read from.
        formats: Pillow's names of those that are read, whatever the file is called; by default all it knows, some of
            which start other programs: for files of strangers name a few.

    Raises:
        DataError: not a picture, truncated, larger than `MAX_PIXELS`, or a strip whose sides differ by more than
            `MAX_RATIO`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata in pictures that can be read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path if content is None else BytesIO(content), formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(_too_large(path, place, f"{image.width} x {image.height} pixels"))
                if max(image.size) > MAX_RATIO * min(image.size):
                    raise DataError(
                        f"{place}: {path} is a strip of {image.width} x {image.height} pixels, sides may differ "
                        f"{MAX_RATIO} times; cut it"
                    )
                return image.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(_too_large(path, place, "too many pixels")) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{place}: {path} is no picture that can be read; replace it or leave it out") from error
    except DataError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{place}: there is no {path}") from error
    except NOT_A_PICTURE as error:
        raise DataError(f"{place}: {path} is damaged or cut short ({error}); copy it again") from error


def _too_large(path: Path, place: str, size: str) -> str:
    return f"{place}: {path} has {size}, at most {MAX_PIXELS} are read; shrink it"
