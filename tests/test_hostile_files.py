"""Files that were made to harm: every reader of ours refuses them by name, and executes nothing.

Hostile pickles of embeddings are in retrieval/test_importing.py, hostile pictures and servers in
retrieval/test_fetch.py, lying indices in retrieval/test_index.py.
"""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gill.data import FeatureStore, FeatureWriter, StoreCard, TargetFolder, find_image, open_image, target_path
from gill.errors import CheckpointError, DataError, GillError
from gill.mappers import DecisionHead
from gill.models.gill import load_trained, read_decision, read_released, save_model
from gill.models.gill.decision import load_decision, save_decision
from gill.models.gill.trained import read_trained
from tests.models.gill.tiny_gill import tiny_model
from tests.retrieval.picture_server import png


class Payload:
    """Creates a file when it is unpickled by a reader that trusts."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


RELEASED_ARGS = {
    "opt_version": "tiny",
    "visual_encoder": "tiny",
    "num_tokens": 4,
    "n_visual_tokens": 2,
    "ret_emb_dim": 8,
    "text_fc_mode": "gill_mapper",
    "num_clip_tokens": 12,
    "gen_emb_dim": 16,
    "retrieval_token_idx": [260, 261, 262, 263],
}
READERS: dict[str, Callable[[Path], object]] = {
    "pretrained_ckpt.pth.tar": read_released,
    "ckpt_best.pth.tar": read_trained,
    "decision_model.pth.tar": lambda folder: read_decision(folder / "decision_model.pth.tar"),
}


def write_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content))


def write_zip(path: Path, content: object) -> None:
    torch.save(content, path)


def write_legacy(path: Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("write", [write_pickle, write_zip, write_legacy])
@pytest.mark.parametrize("place", ["instead", "beside", "within"])
def test_payloads_in_released_checkpoints_are_not_executed(
    place: str, write: Callable[[Path, object], None], name: str, tmp_path: Path
) -> None:
    (tmp_path / "model_args.json").write_text(json.dumps(RELEASED_ARGS))
    payload, weight = Payload(tmp_path / "executed"), torch.ones(2, 4)
    content = {
        "instead": payload,
        "beside": {"state_dict": {"1.weight": weight}, "args": payload},
        "within": {"state_dict": {"1.weight": payload}},
    }[place]
    write(tmp_path / name, content)
    with pytest.raises(CheckpointError, match="without executing code in it"):
        READERS[name](tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04" + bytes(100),
        b"\x80\x02]r" + struct.pack("<I", 2**31 - 1) + b".",
        b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
        b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dictK\x01s.",
    ],
)
def test_malformed_checkpoints_are_named(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / "model_args.json").write_text(json.dumps(RELEASED_ARGS))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        READERS[name](tmp_path)


def safetensors(header: object, data: bytes = b"") -> bytes:
    """A file of the format, with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    """One tensor of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


MALFORMED = {
    "empty": b"",
    "a header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header that ends early": struct.pack("<Q", 100) + b"{}",
    "a header that is no JSON": safetensors(b"{" * 9),
    "a header that is a list": safetensors([]),
    "a deeply nested header": safetensors(b"[" * 100_000),
    "an offset behind the end": safetensors({"weight": entry(0, 4000, [1000])}, bytes(8)),
    "a negative offset": safetensors({"weight": entry(-4, 4, [2])}, bytes(8)),
    "offsets that overlap": safetensors({"weight": entry(0, 8, [2]), "bias": entry(4, 12, [2])}, bytes(12)),
    "offsets in the wrong order": safetensors({"weight": entry(8, 0, [2])}, bytes(8)),
    "a shape of more numbers than there are": safetensors({"weight": entry(0, 8, [2**40, 2**40])}, bytes(8)),
    "a shape that overflows": safetensors({"weight": entry(0, 0, [2**32, 2**32])}),
    "an unknown type": safetensors({"weight": entry(0, 8, [2], "OBJECT")}, bytes(8)),
    "a pickle": pickle.dumps({"weight": 1}),
}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, tiny_model(dtype="float32"))
    return folder


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_safetensors_are_refused_by_every_reader(kind: str, saved_model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes((saved_model / "model.json").read_bytes())
    (tmp_path / "weights.safetensors").write_bytes(MALFORMED[kind])
    for reader in (load_trained, read_trained):
        with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
            reader(tmp_path)
    rows = torch.zeros(4, 8)
    save_decision(tmp_path, DecisionHead(8), rows, {})
    (tmp_path / "decision.safetensors").write_bytes(MALFORMED[kind])
    with pytest.raises(CheckpointError, match="decision"):
        load_decision(tmp_path, rows)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b'{"family": 1}', b"[" * 100_000])
def test_malformed_settings_are_refused_by_every_reader(content: bytes, tmp_path: Path) -> None:
    rows = torch.zeros(4, 8)
    save_decision(tmp_path, DecisionHead(8), rows, {})
    (tmp_path / "decision.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"decision\.json"):
        load_decision(tmp_path, rows)
    (tmp_path / "model_args.json").write_bytes(content)
    torch.save({"state_dict": {}}, tmp_path / "pretrained_ckpt.pth.tar")
    with pytest.raises(CheckpointError, match=r"model_args\.json"):
        read_released(tmp_path)
    (tmp_path / "model.json").write_bytes(content)
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.json"):
        read_trained(tmp_path)


def test_arrays_of_objects_are_not_unpickled_as_targets_or_features(tmp_path: Path) -> None:
    evil = np.empty((2, 2), dtype=object)
    evil[:] = Payload(tmp_path / "executed")
    target = target_path(tmp_path, "1.png")
    np.save(target, evil, allow_pickle=True)
    with pytest.raises(DataError, match="no array that can be read"):
        TargetFolder(tmp_path).read("1.png", "captions.tsv:2")
    writer = FeatureWriter(tmp_path / "store", StoreCard("tiny", 2))
    writer.write(0, ["1.png", "2.png"], ["1.png", "2.png"], np.ones((2, 2)))
    np.save(tmp_path / "store" / "shard-00000.npy", evil, allow_pickle=True)
    with pytest.raises(GillError, match="differs from its checksum"):
        FeatureStore(tmp_path / "store").read("1.png", "captions.tsv:2")
    assert not (tmp_path / "executed").exists()


def test_pictures_of_training_are_no_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(png(60, 50))
    assert open_image(find_image(tmp_path, "x", "captions.tsv:2"), "captions.tsv:2").size == (60, 50)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # Pillow warns beyond this, and refuses beyond twice as many
    with pytest.raises(DataError, match=r"captions\.tsv:2: .* too many pixels"):
        open_image(tmp_path / "x.png", "captions.tsv:2")
