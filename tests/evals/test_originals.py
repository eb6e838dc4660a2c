"""The original's commands: names, arguments and files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from evals import (
    compute_clip_similarity_visdial,
    compute_clip_similarity_vist,
    generate_visdial_images,
    generate_vist_images,
)
from evals.download_vist_images import download
from evals.harness.runs import read_run
from evals.harness.vist import read_generation
from gill.errors import FetchError
from gill.flatland import draw, scenes
from tests.evals.benchmark_files import NUM_STORIES, STORIES, rewrite, write_dialogues, write_stories

CHANCE = ["--system", "chance"]


@pytest.mark.parametrize(
    ("generate", "score", "write", "default", "file", "task"),
    [
        (
            generate_vist_images,
            compute_clip_similarity_vist,
            write_stories,
            "sis",
            "vist_clip_similarity.txt",
            "vist-generation",
        ),
        (
            generate_visdial_images,
            compute_clip_similarity_visdial,
            write_dialogues,
            "VisualDialog",
            "visdial_clip_similarity.txt",
            "visdial-generation",
        ),
    ],
)
def test_the_originals_two_commands(
    generate, score, write, default, file, task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """One argument, the data where the original looks for them, the score in its file."""
    clip = str(Path("checkpoints/flatland/clip").resolve())
    folder = write(tmp_path)
    assert folder.name == default
    monkeypatch.chdir(tmp_path)
    run = f"gill_{default.replace('sis', 'vist').replace('VisualDialog', 'visdial')}_outputs"
    assert generate.main([run, *CHANCE]) == 0
    assert read_run(tmp_path / run).manifest["task"] == task
    assert score.main(["--clip", clip]) == 0
    assert -1 <= float((tmp_path / file).read_text()) <= 1


def test_options_stand_before_or_after_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline is not given the model that the original's command loads."""
    write_stories(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert generate_vist_images.main(["--context", "5cap", "before", *CHANCE]) == 0
    assert generate_vist_images.main(["after", *CHANCE, "--context", "5cap"]) == 0
    before, after = (read_run(tmp_path / name) for name in ("before", "after"))
    assert before.manifest == after.manifest and before.manifest["context"] == "5cap"
    assert before.manifest["model"] == ""


class FakeWeb:
    """Has some of the pictures."""

    def __init__(self, dead: set[str]) -> None:
        self.dead, self.asked = dead, []  # type: ignore[var-annotated]

    def fetch(self, source: str) -> Image.Image:
        self.asked.append(source)
        if source in self.dead:
            raise FetchError(f"{source}: gone")
        return draw(next(scenes("val", 1))).resize((900, 600))


def test_pictures_are_fetched_once_and_dead_links_are_tried_again(tmp_path: Path) -> None:
    folder = write_stories(tmp_path)

    def with_addresses(told: dict[str, list[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
        for image in told["images"]:
            image["url_o"] = f"https://example.org/{image['id']}.jpg"
        del told["images"][7]["url_o"]
        return told

    rewrite(folder / STORIES, with_addresses)
    for number in range(5 * NUM_STORIES):
        (folder / "val_images" / f"{10_000_000 + number}.png").unlink()
    web = FakeWeb({"https://example.org/10000002.jpg"})
    said = download(folder, 64, 2, web)
    total = 5 * NUM_STORIES
    assert f"{total} pictures are used, 0 were there, {total - 2} are new, 1 have a dead link, 1 have none" in said
    with Image.open(folder / "val_images" / "10000000.png") as picture:
        assert picture.size == (64, 43)
    web.asked.clear()
    web.dead.clear()
    assert f"{total - 2} were there, 1 are new, 0 have a dead link, 1 have none" in download(folder, 64, 2, web)
    assert web.asked == ["https://example.org/10000002.jpg"]


def test_the_short_form_asks_the_same_questions(tmp_path: Path) -> None:
    folder = write_stories(tmp_path)
    download(folder, 64, 1, FakeWeb(set()))
    long_form = read_generation(folder, "corrected", "5cap4img")
    (folder / STORIES).unlink()
    assert read_generation(folder, "corrected", "5cap4img") == long_form
    (story,) = list(json.loads((folder / "val_formatted.json").read_text())["annotations"])[:1]
    assert story == long_form.items[0].id
