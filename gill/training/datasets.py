"""Where a run's data lie: names and folders to sources."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gill.data import (
    TARGET_FOLDER_NAME,
    CaptionFile,
    CaptionTable,
    FeatureStore,
    FlatlandSource,
    ShardFolder,
    Source,
    TargetFolder,
    find_shards,
)
from gill.errors import ConfigError

FLATLAND = "flatland"
_NUM_FLATLAND_TRAIN, _NUM_FLATLAND_VAL = 10_000_000, 256
# caption file ending -> split folder of the pictures, as the original laid CC3M out
_FOLDERS = {"train": "training", "val": "validation"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSettings:
    """What a run reads.

    Attributes:
        train, val: a name such as "cc3m" (`DATASET_DIR/NAME_train.tsv`, pictures in `IMAGE_DIR/NAME/training/`), a
            `.tsv` file (pictures in `IMAGE_DIR/`), a folder of WebDataset shards (`.tar`), or "flatland".
        image_features: store of image features, with `training/` and `validation/` inside or one for both; "" = none.
        contexts: of Flatland, "mixed" or "none".
    """

    train: str = "cc3m"
    val: str = "cc3m"
    dataset_dir: str = "datasets"
    image_dir: str = "data"
    image_features: str = ""
    contexts: str = "none"


def open_source(data: DataSettings, split: str, seed: int, vision: str, target_shape: tuple[int, int] | None) -> Source:
    """The training ("train") or validation ("val") set.

    Args:
        vision: name of the model's vision tower, which stored features must be of.
        target_shape: (L, C) of stored conditioning targets; None when they are not stored.

    Raises:
        MissingFileError: a file or folder is not there; DataError: it cannot be used; ConfigError: it does not fit.
    """
    name = data.train if split == "train" else data.val
    if name == FLATLAND:
        return _open_flatland(data, split, seed, target_shape)
    shards = find_shards(Path(name))
    if shards:
        return _open_shards(data, shards, target_shape)
    if "," in name:
        raise ConfigError(f"one data set at a time, got {name!r}; join the files into one .tsv")
    folder = Path(data.image_dir)
    table = find_table(Path(name))
    if table.suffix != ".tsv":
        table = find_table(Path(data.dataset_dir) / f"{name}_{split}.tsv")
        folder = folder / name / _FOLDERS[split]
        _refuse_path(name, table)
    features = _open_features(data, split, vision)
    targets = None if target_shape is None else TargetFolder(folder / TARGET_FOLDER_NAME, target_shape)
    return CaptionFile(CaptionTable(table), folder, features, targets)


def _refuse_path(name: str, table: Path) -> None:
    """Say what to name instead, to those who named a file or folder that is no data set."""
    path = Path(name)
    if table.exists() or not path.exists():
        return
    if path.is_dir():
        inside = next(iter(sorted(path.glob("*.tsv"))), path / "captions.tsv")
        raise ConfigError(f"{name} is a folder without .tar shards; name its caption file, such as {inside}")
    raise ConfigError(f"{name} is no caption file; wanted a .tsv: the header caption<TAB>image, then a pair a line")


def _open_flatland(data: DataSettings, split: str, seed: int, target_shape: tuple[int, int] | None) -> Source:
    if target_shape is not None:
        raise ConfigError("flatland has no stored conditioning targets; name a --diffusion-model")
    if split == "train":
        return FlatlandSource("train", _NUM_FLATLAND_TRAIN, seed, data.contexts)
    return FlatlandSource("val", _NUM_FLATLAND_VAL, seed, contexts="none")


def _open_shards(data: DataSettings, paths: Sequence[Path], target_shape: tuple[int, int] | None) -> Source:
    if data.image_features or target_shape is not None:
        raise ConfigError(
            "features and conditioning targets are stored by image name, and shards are read as they are; leave out "
            "--image-features and name a --diffusion-model, or give a caption file"
        )
    return ShardFolder(paths)


def _open_features(data: DataSettings, split: str, vision: str) -> FeatureStore | None:
    if not data.image_features:
        return None
    folder = Path(data.image_features)
    inner = folder / _FOLDERS[split]
    store = FeatureStore(inner if inner.is_dir() else folder)
    store.check_tower(vision)
    return store


def find_table(path: Path) -> Path:
    """The path itself, or, where `datasets/` is missing, the same below `dataset/`, as the original's README has it."""
    if path.exists() or "datasets" not in path.parts:
        return path
    parts = list(path.parts)
    parts[parts.index("datasets")] = "dataset"
    other = Path(*parts)
    if other.exists():
        _log.warning("%s is missing; reading %s", path, other)
        return other
    return path
