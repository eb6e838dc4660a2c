"""Decode pictures that strangers made: known formats only, and no more pixels or bytes than a picture needs."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image

from gill.errors import NOT_A_PICTURE, ConfigError, FetchError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


@dataclass(frozen=True)
class FetchLimits:
    """What one picture may cost.

    Attributes:
        num_bytes: of the file or download. num_pixels: width x height. side_ratio: of the longer to the shorter side,
            which a vision tower makes as long as it reads before it cuts the other.
        seconds: for everything a download takes, redirects included. num_redirects: followed at most.
    """

    num_bytes: int = 20_000_000
    num_pixels: int = 64_000_000
    side_ratio: int = 100
    seconds: float = 10.0
    num_redirects: int = 5

    def __post_init__(self) -> None:
        if min(self.num_bytes, self.num_pixels, self.side_ratio, self.seconds) <= 0 or self.num_redirects < 0:
            raise ConfigError(f"limits must be above 0, got {self}")


def decode(content: bytes, source: str, limits: FetchLimits) -> Image.Image:
    """A picture, in RGB, from the bytes of its file. Its size is checked before its pixels are unpacked.

    Raises:
        FetchError: not a JPEG, PNG, WebP or GIF, damaged, or too large; the message starts with `source`.
    """
    if len(content) > limits.num_bytes:
        raise FetchError(f"{source}: larger than {limits.num_bytes} bytes, the most that is read of a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is the stricter one
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > limits.num_pixels:
                    raise FetchError(
                        f"{source}: {image.width} x {image.height} pixels, at most {limits.num_pixels} are unpacked"
                    )
                if max(image.size) > limits.side_ratio * min(image.size):
                    raise FetchError(f"{source}: a strip of {image.width} x {image.height} pixels")
                return image.convert("RGB")
    except FetchError:
        raise
    except Image.DecompressionBombError as error:
        raise FetchError(f"{source}: far more pixels than the {limits.num_pixels} that are unpacked") from error
    except NOT_A_PICTURE as error:
        raise FetchError(f"{source}: no readable {', '.join(FORMATS)} ({error or type(error).__name__})") from error
