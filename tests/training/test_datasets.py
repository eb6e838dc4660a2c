"""What `--dataset` takes, and what is said to those who name something else."""

from pathlib import Path

import pytest
from PIL import Image

from gill.data import Source
from gill.errors import ConfigError, MissingFileError
from gill.training import DataSettings, open_source


def source(name: Path | str, place: Path) -> Source:
    settings = DataSettings(train=str(name), dataset_dir=str(place / "datasets"), image_dir=str(place))
    return open_source(settings, "train", 0, "tiny", None)


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """A caption file beside its one picture."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "captions.tsv").write_text("caption\timage\na cat\ta.png\n")
    return tmp_path / "captions.tsv"


def test_a_caption_file_is_read_beside_its_pictures(captions: Path, tmp_path: Path) -> None:
    found = source(captions, tmp_path)
    assert len(found) == 1 and found.read(0).record.caption == "a cat"


def test_a_folder_of_pictures_is_told_from_its_caption_file(captions: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"is a folder without .tar shards; name its caption file, such as .*captions\.tsv"
    ):
        source(tmp_path, tmp_path)


def test_a_file_of_another_form_is_no_caption_file(captions: Path, tmp_path: Path) -> None:
    other = captions.with_suffix(".csv")
    captions.rename(other)
    with pytest.raises(ConfigError, match=r"captions\.csv is no caption file; wanted a \.tsv"):
        source(other, tmp_path)


def test_a_name_is_looked_up_even_where_a_folder_has_it(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("cc3m/training", "datasets"):
        Path(folder).mkdir(parents=True)
    captions.rename("datasets/cc3m_train.tsv")
    assert len(source("cc3m", tmp_path)) == 1
    with pytest.raises(MissingFileError, match=r"other_train\.tsv is missing"):
        source("other", tmp_path)
