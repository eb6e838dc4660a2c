"""What a chat is measured by, with replies whose worth is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evals.flatland_chat import describe, draw_new, main, retrieve
from gill.errors import MissingFileError
from gill.flatland import caption, draw, read_caption, read_picture
from gill.types import GenerationOptions, ImageOutput, Picture, Segment
from scripts.make_flatland_gallery import make_gallery

NUM = 4


class Chat:
    """Answers every request rightly but the first, to which it says something else."""

    images = SimpleNamespace(drawer=object())

    def __init__(self, found: Sequence[str] = ()) -> None:
        self.found = list(found)

    def generate_batch(self, prompts: Sequence[list[Segment]], options: GenerationOptions, seeds: Any) -> list[Any]:
        replies = [self._answer(number, prompt[0], options) for number, prompt in enumerate(prompts)]
        return [["something else"], *replies[1:]]

    def _answer(self, number: int, part: Segment, options: GenerationOptions) -> list[Any]:
        if part.image is not None:
            return [caption(read_picture(part.image))]
        if options.num_retrieved:
            picture = draw(read_caption(part.text or ""))
            return [ImageOutput(retrieved=(Picture(picture, 1.0, f"pictures.zip/{self.found[number]}"),))]
        return [ImageOutput(generated=(Picture(draw(read_caption(part.text or "")), None, "seed 0"),))]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def test_descriptions_are_marked_by_what_they_tell() -> None:
    found = describe(Chat(), NUM)  # type: ignore[arg-type]
    assert {name: mean(values) for name, values in found.items()} == dict.fromkeys(found, (NUM - 1) / NUM)
    assert set(found) == {f"described.{name}" for name in ("readable", "place", "shape", "colour", "all")}


def test_a_stored_picture_is_found_by_its_name(tmp_path: Path) -> None:
    make_gallery(tmp_path / "pictures.zip", "test", NUM, 0)
    chat = Chat([f"{number:05d}.png" for number in range(NUM - 1)] + ["00000.png"])
    found = retrieve(chat, tmp_path, NUM)  # type: ignore[arg-type]
    assert found["retrieved.answered_by_image"] == [0, 1, 1, 1]
    assert found["retrieved.r1"] == [0, 1, 1, 0]
    with pytest.raises(MissingFileError, match="make_flatland_gallery"):
        retrieve(chat, tmp_path / "nowhere", NUM)  # type: ignore[arg-type]


def test_a_new_picture_is_read_by_the_judge() -> None:
    found = draw_new(Chat(), NUM)  # type: ignore[arg-type]
    assert found["drawn.shape_colour_cell"] == [0, 1, 1, 1]


def test_a_folder_without_a_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert f"flatland_chat: {tmp_path}" in capsys.readouterr().err
