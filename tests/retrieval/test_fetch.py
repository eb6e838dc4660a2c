"""Pictures from folders and archives: what comes, and what is refused."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from gill.errors import ConfigError, FetchError, GillError
from gill.retrieval import FetchLimits, PictureFetcher
from gill.types import PictureSource
from tests.retrieval.picture_server import LIMITS, png

# Folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a picture in it, below it and in an archive, and a secret beside it."""
    (tmp_path / "root" / "below").mkdir(parents=True)
    for name in ("a.png", "below/b ä.png", "../secret.png"):
        (tmp_path / "root" / name).write_bytes(png())
    with zipfile.ZipFile(tmp_path / "root" / "pictures.zip", "w") as packed:
        packed.writestr("deep/c.png", png(5, 7))
    return tmp_path / "root"


def test_pictures_are_found_by_path(root: Path) -> None:
    fetcher: PictureSource = PictureFetcher([root / "below", root])
    for source in ("a.png", "b ä.png", "below/b ä.png", str(root / "a.png")):
        image = fetcher.fetch(source)
        assert (image.size, image.mode, image.getpixel((0, 0))) == ((3, 2), "RGB", (200, 30, 40))
    assert fetcher.fetch("pictures.zip/deep/c.png").size == (5, 7)


@pytest.mark.parametrize(
    "source",
    [
        "../secret.png",
        "below/../../secret.png",
        "/etc/hostname",
        "link.png",
        "linked/secret.png",
        "pictures.zip/../../secret.png",
    ],
)
def test_nothing_outside_the_folders_is_opened(source: str, root: Path) -> None:
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "linked").symlink_to(root.parent)
    with pytest.raises(FetchError, match="outside the folders of the pictures"):
        PictureFetcher([root]).fetch(source)
    with pytest.raises(FetchError, match="no roots were given"):
        PictureFetcher().fetch(str(root / "a.png"))


@pytest.mark.parametrize("source", ["gone.png", "below", "", "pictures.zip/gone.png", "a.png/b.png", "pictures.zip"])
def test_dead_paths_are_errors_of_the_fetcher(source: str, root: Path) -> None:
    with pytest.raises(FetchError) as raised:
        PictureFetcher([root]).fetch(source)
    assert isinstance(raised.value, GillError) and isinstance(raised.value, OSError)
    assert str(raised.value).startswith(source)


@pytest.mark.parametrize("source", ["a\0.png", "circle/a.png", "x" * 5000])
def test_paths_that_are_none_are_refused(source: str, root: Path) -> None:
    (root / "circle").symlink_to(root / "circle")
    with pytest.raises(FetchError):
        PictureFetcher([root]).fetch(source)


@pytest.mark.parametrize(
    "source",
    ["file:///etc/hostname", "FILE:a.png", "ftp://a/b.png", "data:image/png;base64,AAAA", "javascript:1", "gopher://a"],
)
def test_other_schemes_are_refused(source: str, root: Path) -> None:
    with pytest.raises(FetchError, match=r"only paths and http\(s\) addresses are opened"):
        PictureFetcher([root], allow_network=True).fetch(source)


# Files that are no pictures, or too much of one


def broken_png(**changed: bytes) -> bytes:
    """A PNG of one black pixel whose header and data can be replaced."""
    chunks = {"IHDR": struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0), "IDAT": zlib.compress(b"\0\0\0\0"), "IEND": b""}
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in {**chunks, **changed}.items():
        body = name.encode() + data
        parts += [struct.pack(">I", len(data)), body, struct.pack(">I", zlib.crc32(body))]
    return b"".join(parts)


@pytest.mark.parametrize(
    ("content", "message"),
    {
        "empty": (b"", "no readable"),
        "text": (b"<html>", "no readable"),
        "cut short": (png(90, 90)[:60], "no readable"),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "no readable"),
        "postscript, which runs a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no readable"),
        "bitmap, a format that is not asked for": (b"BM" + bytes(200), "no readable"),
        "more pixels than allowed": (png(101, 100), "101 x 100 pixels, at most 10000"),
        "a strip": (png(1, 101), "a strip of 1 x 101 pixels"),
        "a bomb: 60000 x 60000 in a few bytes": (
            broken_png(IHDR=struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)),
            "far more pixels|60000 x 60000 pixels",
        ),
        "a text chunk that unpacks to 200 MB": (
            broken_png(zTXt=b"k\0\0" + zlib.compress(bytes(200_000_000))),
            "larger than 20000 bytes|no readable",
        ),
        "no width": (broken_png(IHDR=struct.pack(">IIBBBBB", 0, 9, 8, 2, 0, 0, 0)), "no readable"),
        "more bytes than allowed": (png() + bytes(20_000), "larger than 20000 bytes"),
    }.values(),
)
def test_what_is_no_picture_or_too_much_of_one_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x.png", content)
    for source in ("x.png", "x.zip/x.png"):
        with pytest.raises(FetchError, match=message) as raised:
            PictureFetcher([tmp_path], limits=LIMITS).fetch(source)
        assert str(raised.value).startswith(source)


def test_an_archive_bomb_is_read_no_further_than_allowed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("bomb.png", bytes(50_000_000))
    assert (tmp_path / "x.zip").stat().st_size < 60_000
    with pytest.raises(FetchError, match="larger than 20000 bytes"):
        PictureFetcher([tmp_path], limits=LIMITS).fetch("x.zip/bomb.png")


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK\x05\x06 nothing")
    with pytest.raises(FetchError, match=r"x\.zip/a\.png: cannot be read"):
        PictureFetcher([tmp_path]).fetch("x.zip/a.png")


def test_limits_must_be_limits() -> None:
    bad: list[Callable[[], FetchLimits]] = [
        lambda: FetchLimits(seconds=0),
        lambda: FetchLimits(num_bytes=-1),
        lambda: FetchLimits(num_redirects=-1),
    ]
    for make in bad:
        with pytest.raises(ConfigError, match="limits must be above 0"):
            make()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_any_mode_come_in_rgb(mode: str, tmp_path: Path) -> None:
    image, buffer = Image.new(mode, (4, 4)), io.BytesIO()
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    (tmp_path / "x.png").write_bytes(buffer.getvalue())
    assert PictureFetcher([tmp_path]).fetch("x.png").mode == "RGB"
