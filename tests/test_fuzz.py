"""Thousands of malformed inputs: an answer or a message of ours, never a crash, and nothing silently dropped."""

from __future__ import annotations

import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from gill.data import (
    BadSample,
    BadSamples,
    CaptionFile,
    CaptionTable,
    FeatureStore,
    FeatureWriter,
    StoreCard,
    open_image,
)
from gill.errors import GillError
from gill.models.gill import GillConfig
from gill.models.gill.checkpoint import read_card, save_state
from gill.training import Checkpoints, ModelFiles, Progress, RunLog, claim_folder, newest_checkpoint

NUM_TABLES, NUM_PICTURES, NUM_JSON = 700, 700, 900
FUZZ = {"deadline": None, "database": None, "derandomize": True}
COUNTS: Counter[str] = Counter()


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(tempfile.mkdtemp())


# Caption files: lines of fields, tabs, quotes, control characters, and bytes that are no text.

FIELD = st.one_of(
    st.text(max_size=12), st.sampled_from(["", " ", '"', "a\u2028b", "\x00", "x" * 4001, "caption", "\ufeff"])
)
LINE = st.one_of(
    st.lists(FIELD, max_size=4).map(lambda fields: "\t".join(fields).encode("utf-8", "surrogatepass")),
    st.binary(max_size=20),
    st.just(b"a good caption\tpicture.jpg"),
)
HEADER = st.one_of(st.just(b"caption\timage"), st.just(b"caption\timage"), st.just(b"caption\timage"), LINE)
END = st.sampled_from([b"\n", b"\r\n"])


@settings(max_examples=NUM_TABLES, **FUZZ)
@given(header=HEADER, lines=st.lists(LINE, max_size=12), end=END)
def test_kept_and_reported_rows_are_all_that_were_given(
    header: bytes, lines: list[bytes], end: bytes, folder: Path
) -> None:
    path = folder / "captions.tsv"
    path.write_bytes(end.join([header, *lines]))
    rows = path.read_bytes().split(b"\n")[1:]
    given_rows = sum(bool(row.strip() or b"\t" in row) for row in rows)
    COUNTS["tables"] += 1
    try:
        table = CaptionTable(path)
    except GillError as error:
        assert str(path) in str(error)
        return
    assert len(table) + len(table.bad_rows) == given_rows
    read = [table.row(index) for index in range(len(table))]
    assert all(caption.strip() and image.strip() for caption, image in read)
    numbers = [table.line(index) for index in range(len(table))] + [bad.line for bad in table.bad_rows]
    assert len(set(numbers)) == given_rows
    assert all(bad.reason.startswith(f"{path}:{bad.line}: ") for bad in table.bad_rows)


# Pictures: every format that is read, cut short, overwritten, spliced and invented.


@cache
def pictures() -> list[bytes]:
    rng, found = np.random.default_rng(0), []
    image = Image.fromarray(rng.integers(0, 255, (24, 20, 3), dtype=np.uint8))
    for kind, changes in (("PNG", {}), ("JPEG", {}), ("GIF", {}), ("WEBP", {}), ("BMP", {}), ("TIFF", {})):
        buffer = io.BytesIO()
        image.save(buffer, kind, **changes)
        found.append(buffer.getvalue())
    return found


@st.composite
def broken_pictures(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(pictures())))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, min(len(content) - 1, 400)))
        content[place : place + draw(st.integers(0, 4))] = draw(st.binary(max_size=6))
    return bytes(content[: draw(st.integers(0, len(content)))]) if draw(st.booleans()) else bytes(content)


@settings(max_examples=NUM_PICTURES, **FUZZ)
@given(contents=st.lists(st.one_of(broken_pictures(), st.binary(max_size=60)), min_size=1, max_size=3))
def test_a_broken_picture_is_read_or_reported(contents: list[bytes], folder: Path) -> None:
    names = [f"{index}.jpg" for index in range(len(contents))]
    for name, content in zip(names, contents, strict=True):
        (folder / name).write_bytes(content)
    (folder / "pictures.tsv").write_text("caption\timage\n" + "".join(f"words\t{name}\n" for name in names))
    source = CaptionFile(CaptionTable(folder / "pictures.tsv"), folder)
    kept, reported = 0, 0
    for index in range(len(source)):
        COUNTS["pictures"] += 1
        try:
            image = source.read(index).image
        except GillError as error:
            assert str(error).startswith(f"{folder / 'pictures.tsv'}:{index + 2}: ")
            reported += 1
        else:
            assert isinstance(image, Image.Image) and image.mode == "RGB"
            kept += 1
    assert kept + reported == len(contents)


def test_a_picture_that_is_whole_is_read(folder: Path) -> None:
    for content in pictures():
        (folder / "whole.jpg").write_bytes(content)
        assert open_image(folder / "whole.jpg", "").size == (20, 24)


# JSON: every file of ours that is read back, with values exchanged, keys lost and bytes overwritten.

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def broken_json(draw: st.DrawFn, content: bytes) -> bytes:
    kind = draw(st.sampled_from(["value", "lost", "exchanged", "bytes", "cut", "deep"]))
    if kind == "value":
        return json.dumps(draw(JSON)).encode()
    if kind == "deep":
        return b"[" * 5_000
    if kind == "cut":
        return content[: draw(st.integers(0, max(len(content) - 2, 0)))]
    if kind == "bytes":
        changed = bytearray(content)
        place = draw(st.integers(0, len(content) - 1))
        changed[place : place + 2] = draw(st.binary(max_size=4))
        return bytes(changed)
    value = json.loads(content.splitlines()[0] if content.count(b"\n{") else content)
    name = draw(st.sampled_from(sorted(value)))
    if kind == "lost":
        del value[name]
    else:
        value[name] = draw(JSON)
    return json.dumps(value).encode()


class Row:
    """A model of one row, its optimiser, and how it is saved."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.arange(3.0))
        self.optimizer = torch.optim.AdamW([self.weight], lr=0.1)

    def checkpoints(self, run: Path) -> Checkpoints:
        return Checkpoints(run, ModelFiles(lambda folder: (folder / "w").write_bytes(b"w"), lambda folder: None))


def feature_store(folder: Path) -> None:
    writer = FeatureWriter(folder, StoreCard("tiny", 2))
    writer.write(0, ["a"], ["a"], np.zeros((1, 2)))


def checkpoint(folder: Path) -> None:
    row = Row()
    row.checkpoints(folder).save(Progress(1), ["weight"], row.optimizer)


def continue_run(folder: Path) -> None:
    row = Row()
    newest = newest_checkpoint(folder)
    assert newest is not None
    row.checkpoints(folder).load(newest, ["weight"], row.optimizer)


def read_state(folder: Path) -> None:
    row = Row()
    row.checkpoints(folder).load(folder / "checkpoints" / "step-00000001", ["weight"], row.optimizer)


def metrics(folder: Path) -> None:
    log = RunLog(folder, 0)
    log.write(1, {"loss": 1.0})
    log.close()


def report(folder: Path) -> None:
    BadSamples(folder / "bad.jsonl", 10, 1.0).add([BadSample("a.tsv", 2, "a.tsv:2: broken")], 1)


# what is spoiled: its path, who writes it, who reads it back
FILES: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], Any]]] = {
    "store": ("store.json", feature_store, FeatureStore),
    "shard": ("shard-00000.json", feature_store, FeatureStore),
    "checksums": ("checkpoints/step-00000001/checksums.json", checkpoint, continue_run),
    "state": ("checkpoints/step-00000001/state.json", checkpoint, read_state),
    "metrics": ("metrics.jsonl", metrics, lambda folder: RunLog(folder, 1).close()),
    "bad samples": ("bad.jsonl", report, report),
    "settings": ("config.json", lambda f: claim_folder(f, {"a": {"b": 1}}), lambda f: claim_folder(f, {"a": {"b": 1}})),
    "model": ("model.json", lambda folder: save_state(folder, GillConfig(), {}, 3), read_card),
}


@settings(max_examples=NUM_JSON, **FUZZ)
@given(data=st.data(), name=st.sampled_from(sorted(FILES)))
def test_spoiled_json_is_answered_or_refused(data: st.DataObject, name: str, folder: Path) -> None:
    place, write, read = FILES[name]
    own = folder / name
    if not own.exists():
        own.mkdir()
        write(own)
        (own / "original").write_bytes((own / place).read_bytes())
    (own / place).write_bytes(data.draw(broken_json((own / "original").read_bytes())))
    COUNTS["json"] += 1
    try:
        read(own)
    except GillError as error:
        assert len(str(error)) > 20


def test_enough_was_tried() -> None:
    assert sum(COUNTS.values()) >= 2000, COUNTS
