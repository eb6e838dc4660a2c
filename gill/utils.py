"""What notebooks written for the originals import as `from gill import utils`."""

from __future__ import annotations

from PIL import Image

from gill.retrieval import PictureFetcher


def get_image_from_url(url: str) -> Image.Image:
    """A picture of the public web in RGB, in its own size.

    Raises:
        FetchError: a dead link, a private address, something too large or too slow, or no picture.
    """
    return PictureFetcher(allow_network=True).fetch(url)
