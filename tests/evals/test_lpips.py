"""LPIPS between folders: what pairs up, and networks whose maps are compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torchmetrics.functional.image.lpips import _LPIPS

from evals.generate import main as generate
from evals.harness.perceptual import AlexNetMaps, as_pixels, distances
from evals.lpips_2dirs import main as lpips
from evals.lpips_2dirs import pairs_of
from evals.score import load_groups
from gill.errors import MissingFileError
from gill.flatland import draw, scenes
from tests.evals.benchmark_files import NUM_STORIES, write_dialogues, write_stories

NETWORK = ["--network", "checkpoints/flatland/clip"]


def test_dialogues_pair_by_their_number(tmp_path: Path) -> None:
    """The original finds no pair here and writes nan."""
    folder = write_dialogues(tmp_path / "world")
    out = tmp_path / "drawn"
    out.mkdir()
    for path in (folder / "VisualDialog_val2018").glob("*.jpg"):
        shutil.copy(path, out / f"{path.stem[-12:]}.png")
    pairs = pairs_of(folder / "VisualDialog_val2018", out)
    assert len(pairs) == NUM_STORIES
    assert all(left.stem.endswith(right.stem) for _, left, right in pairs)


def test_equal_pictures_are_at_no_distance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_stories(tmp_path / "world") / "val_images"
    (truth / "10000003.png").write_bytes(b"no picture")
    assert lpips(["-d0", str(truth), "-d1", str(truth), "-o", str(tmp_path / "out.txt"), *NETWORK]) == 0
    *lines, average = (tmp_path / "out.txt").read_text().split("\n")
    assert lines[0] == "10000000.png: 0.000000" and average == "Average: 0.0"
    assert len(lines) == 5 * NUM_STORIES - 1 and "1 unreadable" in capsys.readouterr().out


def test_a_run_is_compared_with_its_own_truths(tmp_path: Path) -> None:
    folder = write_stories(tmp_path / "world")
    run = tmp_path / "run"
    assert generate(["vist-generation", str(run), "--data", str(folder), "--system", "chance"]) == 0
    pairs = pairs_of(folder / "val_images", run)
    assert [(name, left.stem) for name, left, _ in pairs][:2] == [("0", "10000004"), ("1", "10000009")]
    assert lpips(["-d0", str(folder / "val_images"), "-d1", str(run), "-o", str(tmp_path / "out.txt"), *NETWORK]) == 0
    assert float((tmp_path / "out.txt").read_text().rsplit(" ", 1)[1]) > 0


def test_a_published_run_is_compared_with_squashed_truths(tmp_path: Path) -> None:
    folder = write_stories(tmp_path / "world")
    for path in (folder / "val_images").iterdir():
        with Image.open(path) as picture:
            picture.resize((96, 40)).save(path)
    run, clip = tmp_path / "run", "checkpoints/flatland/clip"
    words = ["--data", str(folder), "--system", "chance", "--protocol", "paper"]
    assert generate(["vist-generation", str(run), *words]) == 0
    assert lpips(["-d0", str(folder / "val_images"), "-d1", str(run), "-o", str(tmp_path / "out.txt"), *NETWORK]) == 0
    (group,) = load_groups([run], clip, lpips_name=clip)
    average = float((tmp_path / "out.txt").read_text().rsplit(" ", 1)[1])
    assert average == pytest.approx(group.estimate("lpips").mean, rel=1e-5)


def test_folders_that_share_nothing_are_refused(tmp_path: Path) -> None:
    truth = write_stories(tmp_path / "world") / "val_images"
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFileError, match="share no picture"):
        pairs_of(truth, tmp_path / "empty")


def test_alexnets_layers_meet_the_learned_weights() -> None:
    """Random convolutions of AlexNet's shape; the weights are those that LPIPS released."""
    torch.manual_seed(0)
    maps = AlexNetMaps(torchvision.models.alexnet(weights=None).features)
    one, two = (draw(scene) for scene in scenes("val", 2))
    assert [layer.shape[1] for layer in maps([one])] == [64, 192, 384, 256, 256]
    found = distances(maps, [one, one], [one, two])
    assert found[0] == 0 and found[1] > 0
    theirs = _LPIPS(net="alex", pnet_rand=True)  # with LPIPS's own learned weights
    slices = (getattr(theirs.net, f"slice{number}") for number in range(1, 6))
    theirs.net.load_state_dict(dict(zip(theirs.net.state_dict(), maps.features.state_dict().values(), strict=True)))
    assert sum(len(part) for part in slices) == 12  # AlexNet's layers up to the last one that is compared
    with torch.no_grad():
        assert found[1] == pytest.approx(theirs(as_pixels([one]), as_pixels([two])).item(), rel=1e-5)
    assert torch.allclose(distances(maps, [two], [one]), found[1:])
