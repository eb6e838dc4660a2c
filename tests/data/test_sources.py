"""Pictures, stored features and stored targets of a caption file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gill.data import (
    CaptionFile,
    CaptionTable,
    FeatureStore,
    FeatureWriter,
    StoreCard,
    TargetFolder,
    find_image,
    open_image,
    target_path,
)
from gill.errors import ConfigError, DataError, MissingFileError
from gill.files import write_array


def picture(path: Path, size: tuple[int, int] = (8, 8)) -> Path:
    Image.new("RGB", size, (200, 10, 30)).save(path)
    return path


def table_of(folder: Path, *names: str) -> CaptionTable:
    path = folder / "captions.tsv"
    path.write_text("caption\timage\n" + "".join(f"picture {name}\t{name}\n" for name in names))
    return CaptionTable(path)


def test_a_name_without_extension_is_found(tmp_path: Path) -> None:
    picture(tmp_path / "cat.jpg")
    assert find_image(tmp_path, "cat", "c.tsv:2") == tmp_path / "cat.jpg"
    with pytest.raises(MissingFileError, match=r"c.tsv:2: no picture"):
        find_image(tmp_path, "dog", "c.tsv:2")


def test_damaged_and_huge_pictures_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = picture(tmp_path / "whole.png", (64, 64)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("cut.png", "cut short"), ("text.png", "no picture that can be read")):
        with pytest.raises(DataError, match=f"c.tsv:7: .*{message}"):
            open_image(tmp_path / name, "c.tsv:7")
    picture(tmp_path / "strip.png", (1, 101))
    assert open_image(picture(tmp_path / "long.png", (1, 100)), "c.tsv:7").height == 100
    with pytest.raises(DataError, match=r"c.tsv:7: .*a strip of 1 x 101 pixels"):
        open_image(tmp_path / "strip.png", "c.tsv:7")
    monkeypatch.setattr("gill.data.images.MAX_PIXELS", 100)
    with pytest.raises(DataError, match=r"c.tsv:7: .*64 x 64 pixels"):
        open_image(tmp_path / "whole.png", "c.tsv:7")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"too many pixels"):
        open_image(tmp_path / "whole.png", "c.tsv:7")


def test_an_example_says_where_it_comes_from(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    example = CaptionFile(table_of(tmp_path, "a"), tmp_path).read(0)
    assert (example.record.caption, example.record.line) == ("picture a", 2)
    assert example.record.image_path == tmp_path / "a.png"
    assert isinstance(example.image, Image.Image) and example.image.mode == "RGB"


def test_targets_are_the_originals_files(tmp_path: Path) -> None:
    stored = np.arange(6, dtype=np.float16).reshape(2, 3)
    write_array(target_path(tmp_path, "penny.npy.jpg"), stored)
    assert (tmp_path / "penny.npy.jpg.npy").is_file()
    targets = TargetFolder(tmp_path, (2, 3))
    assert torch.equal(targets.read("penny.npy.jpg", "c.tsv:2"), torch.arange(6.0).view(2, 3))
    with pytest.raises(MissingFileError, match=r"c.tsv:3: no conditioning target"):
        targets.read("other.jpg", "c.tsv:3")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.zeros((2, 4), np.float32), r"is \(2, 4\), the model wants \(2, 3\)"),
        (np.zeros(6, np.float32), "wanted float16 or float32"),
        (np.zeros((2, 3), np.int64), "wanted float16 or float32"),
        (np.full((2, 3), np.nan, np.float32), "not finite"),
    ],
)
def test_a_wrong_target_is_refused(tmp_path: Path, stored: np.ndarray, message: str) -> None:
    write_array(target_path(tmp_path, "a"), stored)
    with pytest.raises(DataError, match=f"c.tsv:2: .*{message}"):
        TargetFolder(tmp_path, (2, 3)).read("a", "c.tsv:2")


def test_a_target_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="no array that can be read"):
        TargetFolder(tmp_path).read("a", "c.tsv:2")


def store(folder: Path, names: list[str]) -> FeatureWriter:
    writer = FeatureWriter(folder, StoreCard("tiny", 3, shard_rows=2))
    for number, chunk in writer.missing(names):
        writer.write(number, chunk, chunk, np.array([[len(name)] * 3 for name in chunk], np.float32))
    return writer


def test_features_come_back_by_name(tmp_path: Path) -> None:
    store(tmp_path / "store", ["a", "bb", "ccc"])
    features = FeatureStore(tmp_path / "store")
    assert len(features) == 3 and "bb" in features
    assert features.read("ccc", "").tolist() == [3, 3, 3]
    example = CaptionFile(table_of(tmp_path, "bb"), tmp_path, features=features).read(0)
    assert torch.equal(example.image, torch.full((3,), 2.0))
    with pytest.raises(DataError, match=r"c.tsv:4: dddd is not among the 3 pictures"):
        features.read("dddd", "c.tsv:4")
    with pytest.raises(ConfigError, match="the model reads 'large'"):
        features.check_tower("large")


def test_a_stopped_store_is_continued(tmp_path: Path) -> None:
    store(tmp_path, ["a", "bb"])
    before = (tmp_path / "shard-00000.npy").stat().st_mtime_ns
    assert store(tmp_path, ["a", "bb", "ccc"]).missing(["a", "bb", "ccc"]) == []
    assert (tmp_path / "shard-00000.npy").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="choose another folder"):
        FeatureWriter(tmp_path, StoreCard("other", 3))


def test_a_damaged_shard_is_found(tmp_path: Path) -> None:
    store(tmp_path, ["a", "bb"])
    content = bytearray((tmp_path / "shard-00000.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "shard-00000.npy").write_bytes(content)
    with pytest.raises(DataError, match="differs from its checksum"):
        FeatureStore(tmp_path)
