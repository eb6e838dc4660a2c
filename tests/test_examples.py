"""Examples run as they stand in their README."""

from pathlib import Path

import pytest
from PIL import Image

from examples import chat, few_shot, refine
from gill.flatland import read_picture

pytestmark = pytest.mark.slow


def test_every_turn_gets_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "refined.png"
    assert refine.main([str(out), "--say", "a big red star at the top left of the sea.", "a small one."]) == 0
    assert "2 pictures" in capsys.readouterr().out
    with Image.open(out) as row:
        assert row.size == (128, 64)
        assert len(row.getcolors(maxcolors=10_000) or []) > 50, "drawn, not blank"


def test_examples_in_the_prompt_tell_what_the_question_leaves_open(tmp_path: Path) -> None:
    """Only the pictures of the story say what colour its hero is, and only its texts before the last say what it is."""
    out = tmp_path / "few_shot.png"
    assert few_shot.main([str(out)]) == 0
    hero = few_shot.STORY.scenes[0].things[0]
    with Image.open(out) as row:
        assert row.size == (6 * 64, 64)
        alone, after = (read_picture(row.crop((64 * at, 0, 64 * at + 64, 64))) for at in (4, 5))
    assert (hero.shape, hero.colour) in {(thing.shape, thing.colour) for thing in after.things}
    assert (hero.shape, hero.colour) not in {(thing.shape, thing.colour) for thing in alone.things}
    assert after.place == few_shot.STORY.scenes[-1].place


def test_own_examples_take_the_place_of_the_story(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (90, 30), "red").save(picture)
    out = tmp_path / "out.png"
    assert few_shot.main([str(out), "--example", "a red ball.", str(picture), "--ask", "a ball."]) == 0
    with Image.open(out) as row:
        assert row.size == (3 * 64, 64)


def test_a_chat_follows_the_tokenizers_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert chat.main([]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition("? ")[0] for line in said] == [each.question for each in chat.ASKED.rounds[:4]]
    right = [line.partition("? ")[2] == each.answer for line, each in zip(said, chat.ASKED.rounds, strict=False)]
    assert sum(right) >= 3, said
