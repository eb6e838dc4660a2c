"""The two preparations: image features and conditioning targets, stopped, continued and read back by a training."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gill.backbones import (
    tiny_conditioning_encoder,
    tiny_conditioning_tokenizer,
    tiny_image_transform,
    tiny_vision_tower,
)
from gill.data import FeatureStore, FeatureWriter, StoreCard, TargetFolder
from gill.errors import ConfigError
from gill.models.gill.whitening import read_whitening
from main import main as train
from scripts.extract_img_features import main as extract
from scripts.preprocess_sd_embeddings import main as preprocess
from scripts.whiten_features import main as whiten


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Six pictures and their captions."""
    for index in range(6):
        Image.new("RGB", (20, 12), (40 * index, 90, 10)).save(tmp_path / f"{index}.png")
    rows = "".join(f"a picture of number {index}\t{index}.png\n" for index in range(6))
    (tmp_path / "captions.tsv").write_text("caption\timage\n" + rows)
    return tmp_path / "captions.tsv"


def test_features_are_the_towers(captions: Path) -> None:
    folder = captions.parent
    words = [str(captions), str(folder), str(folder / "store"), "--visual-model=tiny", "--shard-rows=4"]
    assert extract(words) == 0
    assert len(list((folder / "store").glob("shard-*.npy"))) == 2
    store = FeatureStore(folder / "store")
    with Image.open(folder / "5.png") as picture:
        wanted = tiny_vision_tower()(tiny_image_transform()(picture)[None])[0]
    assert torch.allclose(store.read("5.png", ""), wanted, atol=1e-6)
    first = (folder / "store" / "shard-00000.npy").stat().st_mtime_ns
    (folder / "store" / "shard-00001.json").unlink()  # as if stopped before the second shard was finished
    assert extract(words) == 0
    assert len(FeatureStore(folder / "store")) == 6
    assert (folder / "store" / "shard-00000.npy").stat().st_mtime_ns == first


def test_processes_share_the_work(captions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun starts them, one after the other: each writes its own shards and rows, together all."""
    folder, found = captions.parent, []
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        store = [str(captions), str(folder), str(folder / "store"), "--visual-model=tiny", "--shard-rows=2"]
        assert extract(store) == 0
        assert preprocess([str(captions), str(folder / "clip_embs"), "--diffusion-model=tiny"]) == 0
        found.append((len(list((folder / "store").glob("*.npy"))), len(list((folder / "clip_embs").glob("*.npy")))))
    assert found == [(2, 3), (3, 6)]
    assert len(FeatureStore(folder / "store")) == 6


def test_a_bad_picture_is_left_out_and_listed(captions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = captions.parent
    (folder / "3.png").write_text("broken")
    words = [str(captions), str(folder), str(folder / "store"), "--visual-model=tiny"]
    assert extract(words) == 2
    assert "captions.tsv:5" in capsys.readouterr().err
    assert extract([*words, "--max-bad-fraction=0.5"]) == 0
    assert len(FeatureStore(folder / "store")) == 5
    (line,) = (folder / "store" / "bad_samples.jsonl").read_text().splitlines()
    assert json.loads(line)["line"] == 5


def test_targets_are_the_text_encoders(captions: Path) -> None:
    out = captions.parent / "clip_embs"
    words = [str(captions), str(out), "--diffusion-model=tiny", "--dtype=float32", "--batch-size=4"]
    assert preprocess(words) == 0
    wanted = tiny_conditioning_encoder()(tiny_conditioning_tokenizer()(["a picture of number 5"]))[0]
    assert torch.allclose(TargetFolder(out).read("5.png", ""), wanted, atol=1e-6)
    kept = (out / "0.png.npy").stat().st_mtime_ns
    (out / "5.png.npy").unlink()
    assert preprocess(words) == 0
    assert (out / "0.png.npy").stat().st_mtime_ns == kept and (out / "5.png.npy").is_file()
    assert np.load(out / "5.png.npy").dtype == np.float32


def test_a_training_from_stores_is_the_training_from_pictures(captions: Path) -> None:
    folder = captions.parent
    stored = [str(captions), str(folder), str(folder / "store"), "--visual-model=tiny"]
    assert extract(stored) == 0
    assert preprocess([str(captions), str(folder / "clip_embs"), "--diffusion-model=tiny", "--dtype=float32"]) == 0
    data = ["--dataset", str(captions), "--val-dataset", str(captions), "--image-dir", str(folder), "-p", "1"]
    common = ["--preset=debug", "--val-batch-size=6", f"--log-base-dir={folder}", "--lr-warmup-steps=0", *data]
    assert train([*common, "--diffusion-model=tiny", "--exp-name=pictures"]) == 0
    sizes = ["--num-clip-tokens=12", "--gen-emb-dim=16"]
    assert train([*common, f"--image-features={folder / 'store'}", "--exp-name=stores", *sizes]) == 0
    runs = [(folder / name / "metrics.jsonl").read_text().splitlines() for name in ("pictures", "stores")]
    for one, other in zip(*runs, strict=True):
        assert json.loads(one) == pytest.approx(json.loads(other), rel=1e-4, abs=1e-6)


def test_whitened_features_are_as_long_one_way_as_any_other(captions: Path) -> None:
    store, out = captions.parent / "store", captions.parent / "whitening.safetensors"
    rows = np.random.default_rng(0).normal(size=(400, 6)) * (1, 2, 3, 1, 1, 0.001) + (1, 1, 1, 1, 1, 0)
    names = [f"{number}.png" for number in range(len(rows))]
    writer = FeatureWriter(store, StoreCard("tiny", 6, "float32", 300))
    for number, asked in writer.missing(names):
        writer.write(number, asked, asked, rows[300 * number : 300 * number + len(asked)])
    assert whiten([str(store), str(out)]) == 0
    whitened = rows @ read_whitening(str(out), 6).double().numpy()
    lengths = np.linalg.eigvalsh(whitened.T @ whitened / len(rows))
    assert np.all((lengths[1:] > 0.97) & (lengths[1:] < 1))  # all but the direction of noise
    assert lengths[0] < 0.01
    with pytest.raises(ConfigError, match="for features of 6 numbers, the vision tower gives 5"):
        read_whitening(str(out), 5)
    with pytest.raises(ConfigError, match=r"cannot be read: .* write it with whiten_features\.py"):
        read_whitening(str(store), 6)
