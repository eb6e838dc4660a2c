"""The gallery shows what the shipped model answers, and marks it rightly."""

import re
from pathlib import Path

import pytest
from PIL import Image

from gill.flatland import caption, distinct_scenes, draw, read_picture
from scripts import make_gallery_page
from scripts.make_gallery_page import SIDE, Section, page, sheet


@pytest.mark.slow
def test_every_section_gets_its_pictures_and_true_marks(tmp_path: Path) -> None:
    assert make_gallery_page.main([str(tmp_path), "--count", "1"]) == 0
    text = (tmp_path / "GALLERY.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(pictures) == len(make_gallery_page.SECTIONS) == len(set(pictures))
    assert all((tmp_path / name).stat().st_size < 10_000 for name in pictures)
    (scene,) = distinct_scenes("test", 1, make_gallery_page.SEED + 1)
    with Image.open(tmp_path / "img/gallery_drawn.png") as found:
        true, drawn = (found.crop((0, top, SIDE, top + SIDE)) for top in (0, SIDE + make_gallery_page.GAP))
    assert read_picture(true) == scene
    is_right = read_picture(drawn).content() == scene.content()
    assert f"| {caption(scene)} | {make_gallery_page.RIGHT if is_right else make_gallery_page.WRONG} |" in text


def test_a_table_survives_what_a_reply_may_hold() -> None:
    scene = distinct_scenes("test", 1, 0)[0]
    section = Section("a", "A", "About.", [[draw(scene)]], [("reply", "true"), ("one\ntwo | three", "no")])
    assert "| one two \\| three | no |\n" in page([section], "m")


def test_a_sheet_holds_rows_of_any_length() -> None:
    red, blue = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    found = sheet([[red, red, red], [blue]])
    assert found.size == (3 * SIDE + 8, 2 * SIDE + 4)
    assert found.getpixel((SIDE * 2 + 20, 10)) == (255, 0, 0) and found.getpixel((10, SIDE + 20)) == (0, 0, 255)
    assert found.getpixel((SIDE * 2, SIDE + 20)) == (255, 255, 255)
