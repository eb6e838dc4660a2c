"""A gallery is the scenes it says, the same every time, and an index can carry it."""

import json
import zipfile
from pathlib import Path

import pytest

from gill.flatland import caption, compare, distinct_scenes, read_picture
from gill.models.gill import save_model
from gill.retrieval import PictureFetcher, RetrievalIndex
from scripts.extract_img_embs import main as extract
from scripts.make_flatland_gallery import CAPTIONS_NAME, main
from tests.models.gill.tiny_gill import tiny_model


def test_an_index_carries_its_gallery(tmp_path: Path) -> None:
    index_folder = tmp_path / "model" / "index"
    save_model(tmp_path / "model", tiny_model(dtype="float32"))
    assert main([str(index_folder / "pictures.zip"), "--size=6", "--seed=3"]) == 0
    assert extract([str(index_folder / "pictures.zip"), str(index_folder), f"--model={tmp_path / 'model'}"]) == 0
    moved = (tmp_path / "model").rename(tmp_path / "elsewhere") / "index"
    index, fetcher = RetrievalIndex(moved), PictureFetcher([moved])
    assert index.num_images == 6
    scenes = distinct_scenes("test", 6, 3)
    for number, scene in enumerate(scenes):
        assert index.source(number) == f"pictures.zip/{number:05d}.png"
        assert compare(scene, read_picture(fetcher.fetch(index.source(number)))).shape_colour_cell == 1
    with zipfile.ZipFile(moved / "pictures.zip") as packed:
        captions = json.loads(packed.read(CAPTIONS_NAME))
    assert captions == {f"{number:05d}.png": caption(scene) for number, scene in enumerate(scenes)}


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        assert main([str(tmp_path / name), "--size=3"]) == 0
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_unknown_splits_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "a.zip"), "--split=best"]) == 2
    assert "unknown split 'best'" in capsys.readouterr().err
