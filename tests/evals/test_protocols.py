"""Where the published protocol and the corrected one part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evals import generate as generate_program
from evals.harness import visdial
from evals.harness.items import SUM, UNSHIFTED_SUM, Item, pictures_alone
from evals.harness.systems import ChanceSystem, Settings, System, Truths
from evals.score import load_groups
from tests.evals.benchmark_files import NUM_STORIES, STORIES, by_chance, rewrite, write_dialogues, write_stories

CLIP = "checkpoints/flatland/clip"


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    return write_stories(tmp_path / "world")


def test_published_relevance_stands_one_round_late(tmp_path: Path) -> None:
    """Round ids count from 1; FROMAGe's script takes them as places from 0 among the rounds of all dialogues."""
    folder = write_dialogues(tmp_path / "world")
    rows = json.loads((folder / visdial.DENSE).read_text())
    rounds = {0: 10, 1: 3, NUM_STORIES - 1: 10}
    rewrite(folder / visdial.DENSE, lambda rows: [{**rows[n], "round_id": number} for n, number in rounds.items()])
    ids = [f"{row['image_id']:012d}" for row in rows]
    rated = {
        protocol: [item.id for item in visdial.read_ranking(folder, protocol, "10").items if item.relevance]
        for protocol in ("corrected", "paper")
    }
    assert rated["corrected"] == [f"{ids[0]}-10", f"{ids[1]}-3", f"{ids[-1]}-10"]
    assert rated["paper"] == [f"{ids[1]}-1", f"{ids[1]}-4"], "after the last round of all nothing comes"


def test_the_published_protocol_does_what_it_is_said_to_do(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are squashed, texts begin anew, tokens are scored by their own states: each in the tasks that say so."""
    sizes: set[tuple[int, int]] = set()
    seen: list[object] = []
    embed, load = ChanceSystem.embed, generate_program.load_system

    def look(self: ChanceSystem, items: Sequence[Item], seeds: Sequence[int]) -> Tensor:
        sizes.update(picture.size for item in items for picture in pictures_alone(item.prompt))
        return embed(self, items, seeds)

    def rate(self: ChanceSystem, items: Sequence[Item], seeds: Sequence[int], rating: str) -> list[list[float]]:
        seen.append(rating)
        return [[0.0] * len(item.candidates) for item in items]

    def listen(settings: Settings, truths: Truths) -> System:
        seen.append(settings.repeats_bos)
        return load(settings, truths)

    monkeypatch.setattr(ChanceSystem, "embed", look)
    monkeypatch.setattr(ChanceSystem, "rate", rate)
    monkeypatch.setattr(generate_program, "load_system", listen)
    dialogues = write_dialogues(tmp_path / "dialogues")
    for protocol, size, is_repeated, rating in (
        ("corrected", (64, 64), False, SUM),
        ("paper", (224, 224), True, UNSHIFTED_SUM),
    ):
        words = ("--protocol", protocol, "--limit", "2")
        by_chance("vist-retrieval", stories, tmp_path / f"found-{protocol}", *words)
        assert (sizes, seen) == ({size}, [is_repeated])
        sizes.clear()
        seen.clear()
        by_chance("visdial-ranking", dialogues, tmp_path / f"ranked-{protocol}", *words)
        assert seen == [False, rating]
        seen.clear()


def test_a_last_picture_that_was_shown_before_is_never_found_as_published(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FROMAGe's script takes out every picture of the context, whatever is asked for."""

    def repeat(told: dict[str, list[list[dict[str, str]]]]) -> dict[str, list[list[dict[str, str]]]]:
        told["annotations"][4][0]["photo_flickr_id"] = told["annotations"][0][0]["photo_flickr_id"]
        return told

    rewrite(stories / STORIES, repeat)
    eye = torch.eye(5 * NUM_STORIES)
    rows = {str(10_000_000 + number): eye[number] for number in range(5 * NUM_STORIES)}
    monkeypatch.setattr(
        ChanceSystem, "embed", lambda self, items, seeds: torch.stack([rows[item.target] for item in items])
    )  # every question points at its own picture
    found = {
        protocol: load_groups(
            [by_chance("vist-retrieval", stories, tmp_path / protocol, "--protocol", protocol)], CLIP
        )[0]
        for protocol in ("corrected", "paper")
    }
    assert found["corrected"].estimate("r@1").mean == 1
    assert found["paper"].estimate("r@10").mean == pytest.approx(1 - 1 / NUM_STORIES)
