"""The index on disk, and that its search is the float64 search over all rows."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gill import files
from gill.errors import ConfigError, DataError, MissingFileError, ShapeError
from gill.retrieval import IndexCard, IndexWriter, RetrievalIndex, fingerprint
from gill.retrieval import search as exact_search
from gill.retrieval.layout import read_manifest
from gill.types import PictureIndex

WIDTH = 8
_DESCRIPTORS = Path("/proc/self/fd")


def vectors(count: int, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """float32[count, width], any norm."""
    return np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)


def build(
    folder: Path, rows: np.ndarray, dtype: str = "float32", shard_rows: int = 7, model: str = ""
) -> RetrievalIndex:
    """An index of pictures named by their number, in all alphabets."""
    names = [f"bilder/{number} ä海.png" for number in range(len(rows))]
    writer = IndexWriter(folder, IndexCard(rows.shape[1], dtype, model), shard_rows)
    for number, asked in writer.missing(names):
        first = number * shard_rows
        writer.write(number, asked, asked, rows[first : first + len(asked)])
    writer.finish(len(names))
    return RetrievalIndex(folder)


def brute_force(stored: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and numbers of the best rows in float64, equal scores by number."""
    scores = np.array([[float(np.sum(row.astype(np.float64) * query)) for row in stored] for query in queries])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, order, axis=1), order


def numbers(index: RetrievalIndex, queries: np.ndarray, count: int) -> list[list[int]]:
    """Which pictures were found."""
    hits = index.search(torch.from_numpy(queries), count)
    return [[int(hit.source.split("/")[1].split()[0]) for hit in found] for found in hits]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks smaller than a shard, so that few rows make many of both."""
    monkeypatch.setattr(exact_search, "BLOCK_ROWS", 5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("count", [1, 10, 200])
def test_search_is_the_float64_search_over_all_rows(dtype: str, count: int, tmp_path: Path) -> None:
    rows = vectors(150)
    index: PictureIndex = build(tmp_path, rows, dtype)
    stored = (rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)).astype(dtype)
    queries = vectors(9, seed=1).astype(np.float64)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    scores, order = brute_force(stored, queries, count)
    found = index.search(torch.from_numpy(queries), count)
    assert [[hit.source for hit in hits] for hits in found] == [
        [f"bilder/{number} ä海.png" for number in row] for row in order
    ]
    np.testing.assert_allclose([[hit.score for hit in hits] for hits in found], scores, rtol=0, atol=1e-15)


@pytest.mark.usefixtures("small_blocks")
def test_equal_pictures_come_in_the_order_of_the_index(tmp_path: Path) -> None:
    rows = vectors(60)
    rows[[3, 8, 21, 22, 40, 59]] = rows[3]
    index = build(tmp_path, rows)
    query = (rows[3] / np.linalg.norm(rows[3]))[None]
    assert numbers(index, query, 4) == [[3, 8, 21, 22]]
    assert numbers(index, query, 6) == [[3, 8, 21, 22, 40, 59]]


@pytest.mark.usefixtures("small_blocks")
def test_scores_that_float32_cannot_tell_apart_are_ordered_rightly(tmp_path: Path) -> None:
    """The rows lie within a few float32 steps around one direction, the best of them last."""
    direction = vectors(1, 64)[0]
    rows = np.stack([direction + np.float32(4e-7) * noise for noise in vectors(120, 64, seed=2)])
    index = build(tmp_path, rows)
    stored = np.concatenate([np.load(path) for path in sorted(tmp_path.glob("shard-*.npy"))])
    queries = (direction / np.linalg.norm(direction))[None].astype(np.float64)
    assert numbers(index, queries, 10) == brute_force(stored, queries, 10)[1].tolist()


def test_fewer_pictures_than_asked_for_are_all_found(tmp_path: Path) -> None:
    index = build(tmp_path, vectors(3))
    assert [len(hits) for hits in index.search(torch.eye(WIDTH)[:2], 10)] == [3, 3]
    assert index.search(torch.zeros(0, WIDTH), 10) == []


def test_an_index_says_what_it_holds_and_where_its_pictures_are(tmp_path: Path) -> None:
    index = build(tmp_path, vectors(16), model="abc")
    assert (index.num_images, len(index), index.width, index.card.model) == (16, 16, WIDTH, "abc")
    assert [index.source(number) for number in (0, 6, 7, 15)] == [f"bilder/{n} ä海.png" for n in (0, 6, 7, 15)]
    for number in (-1, 16):
        with pytest.raises(IndexError, match="of 16"):
            index.source(number)


def test_opening_reads_neither_embeddings_nor_names(tmp_path: Path) -> None:
    build(tmp_path, vectors(16))
    for ending in ("npy", "sources", "offsets"):  # garbage of the right size; a header is what numpy needs to map
        path = tmp_path / f"shard-00001.{ending}"
        content = path.read_bytes()
        path.write_bytes(content[:128] + b"\xff" * (len(content) - 128) if ending == "npy" else b"\xff" * len(content))
    index = RetrievalIndex(tmp_path)
    assert index.source(0) == "bilder/0 ä海.png"
    with pytest.raises(DataError, match=r"shard-00001\.sources has no entry"):
        index.source(7)
    with pytest.raises(DataError, match=r"shard-00001\.npy, shard-00001\.sources, shard-00001\.offsets differ"):
        index.verify()


def test_a_whole_index_verifies_and_one_changed_bit_does_not(tmp_path: Path) -> None:
    index = build(tmp_path, vectors(16))
    index.verify()
    content = bytearray((tmp_path / "shard-00002.npy").read_bytes())
    content[-1] ^= 1
    (tmp_path / "shard-00002.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"shard-00002\.npy differ from their checksums"):
        RetrievalIndex(tmp_path).verify()


def test_files_that_do_not_fit_together_are_refused_on_opening(tmp_path: Path) -> None:
    build(tmp_path, vectors(16))
    with (tmp_path / "shard-00001.sources").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=r"shard-00001\.sources is missing or not of the size"):
        RetrievalIndex(tmp_path)


def test_a_folder_without_an_index_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"index\.json is missing; build it with scripts/extract_img_embs\.py"):
        RetrievalIndex(tmp_path)


def test_queries_must_fit(tmp_path: Path) -> None:
    index = build(tmp_path, vectors(3))
    with pytest.raises(ShapeError, match=r"searched by float\[Q, 8\], got \(1, 9\)"):
        index.search(torch.zeros(1, 9), 1)
    with pytest.raises(ShapeError, match="finite queries"):
        index.search(torch.full((1, WIDTH), torch.nan), 1)
    with pytest.raises(ShapeError, match="count is 0"):
        index.search(torch.zeros(1, WIDTH), 0)


def test_an_index_of_another_model_is_refused(tmp_path: Path) -> None:
    weight, bias = torch.randn(4, 3), torch.randn(4)
    index = build(tmp_path / "known", vectors(3), model=fingerprint(weight, bias))
    index.check_model(fingerprint(weight.double(), bias))
    with pytest.raises(ConfigError, match="built with other weights"):
        index.check_model(fingerprint(weight, bias + 1))
    build(tmp_path / "released", vectors(3)).check_model(fingerprint(weight))


def test_a_stopped_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    names, rows = [f"{number}.png" for number in range(16)], vectors(16)
    build_whole = tmp_path / "whole"
    writer = IndexWriter(build_whole, IndexCard(WIDTH), 7)
    for number, asked in writer.missing(names):
        writer.write(number, asked, asked, rows[7 * number : 7 * number + len(asked)])
    writer.finish(len(names))

    stopped = tmp_path / "stopped"
    first = IndexWriter(stopped, IndexCard(WIDTH), 7)
    first.write(0, names[:7], names[:7], rows[:7])
    (stopped / "shard-00001.npy").write_bytes(b"half a shard")  # killed while writing the second
    with pytest.raises(DataError, match="lacks shard 1"):
        first.finish(len(names))
    with pytest.raises(MissingFileError, match="finish a stopped build"):
        RetrievalIndex(stopped)
    again = IndexWriter(stopped, IndexCard(WIDTH), 7)
    assert [number for number, _ in again.missing(names)] == [1, 2]
    for number, asked in again.missing(names):
        again.write(number, asked, asked, rows[7 * number : 7 * number + len(asked)])
    again.finish(len(names))
    whole = {path.name: path.read_bytes() for path in build_whole.iterdir()}
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == whole


def test_a_changed_list_of_pictures_builds_what_changed(tmp_path: Path) -> None:
    build(tmp_path, vectors(16))
    names = [f"bilder/{number} ä海.png" for number in range(9)]
    writer = IndexWriter(tmp_path, IndexCard(WIDTH), 7)
    assert [number for number, _ in writer.missing(names)] == [1]
    assert not (tmp_path / "index.json").exists()
    writer.write(1, names[7:], names[7:], vectors(2))
    writer.finish(len(names))
    assert RetrievalIndex(tmp_path).num_images == 9
    assert not list(tmp_path.glob("shard-00002*"))


def test_settings_of_a_build_cannot_change_half_way(tmp_path: Path) -> None:
    IndexWriter(tmp_path, IndexCard(WIDTH), 7)
    for card, shard_rows in ((IndexCard(9), 7), (IndexCard(WIDTH, "float16"), 7), (IndexCard(WIDTH), 8)):
        with pytest.raises(ConfigError, match="built with other settings"):
            IndexWriter(tmp_path, card, shard_rows)
    with pytest.raises(ConfigError, match="must be one of float32, float16, got 'int8'"):
        IndexCard(WIDTH, "int8")


def test_rows_that_cannot_be_searched_are_refused(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path, IndexCard(WIDTH), 7)
    for bad in (np.zeros((1, WIDTH)), np.full((1, WIDTH), np.nan)):
        with pytest.raises(DataError, match=r"embedding of a\.png is zero or not finite"):
            writer.write(0, ["a.png"], ["a.png"], bad)
    with pytest.raises(DataError, match=r"embeddings are \(1, 3\), wanted \(1, 8\)"):
        writer.write(0, ["a.png"], ["a.png"], np.zeros((1, 3)))
    with pytest.raises(DataError, match="no source of 1 to 8192 bytes"):
        writer.write(0, ["a.png"], ["a" * 9000], np.ones((1, WIDTH)))
    writer.write(0, ["bad.png"], [], np.zeros((0, WIDTH)))
    with pytest.raises(DataError, match="not one picture could be read"):
        writer.finish(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "not an index of format 1"),
        ({"width": "8"}, "width above 0"),
        ({"dtype": "object"}, "must be one of"),
        ({"extra": 1}, "unexpected keyword"),
        ({"shards": [{}]}, "missing 5 required"),
        ({"shards": [{"number": -1, "rows": 1, "asked": "", "sizes": {}, "digests": {}}]}, "damaged"),
        ({"width": 9}, r"is float32\(7, 8\), wanted float32\(7, 9\)"),
    ],
)
def test_manifests_that_lie_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    build(tmp_path, vectors(16))
    content = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=message):
        RetrievalIndex(tmp_path)


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_manifests_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(DataError, match=r"index\.json"):
        read_manifest(tmp_path)


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    build(tmp_path, vectors(3))
    path = tmp_path / "shard-00000.npy"
    np.save(path, np.array([[print] * WIDTH] * 3, dtype=object), allow_pickle=True)
    content = json.loads((tmp_path / "index.json").read_text())
    content["shards"][0]["sizes"]["npy"] = path.stat().st_size
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no array that can be mapped"):
        RetrievalIndex(tmp_path)


def test_an_unknown_backend_and_a_missing_one_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, vectors(3))
    with pytest.raises(ConfigError, match="unknown search backend 'annoy'; known: exact, faiss"):
        RetrievalIndex(tmp_path, backend="annoy")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match="pip install faiss-cpu"):
        RetrievalIndex(tmp_path, backend="faiss")


@pytest.mark.parametrize("count", [200, 12_000])
def test_faiss_finds_what_the_exact_search_finds(count: int, tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="FAISS is an optional dependency")
    centres = vectors(40, 32)
    rows = np.repeat(centres, -(-count // 40), axis=0)[:count] + 0.3 * vectors(count, 32, seed=1)
    build(tmp_path, rows, "float16", shard_rows=5000)
    queries = torch.nn.functional.normalize(torch.from_numpy(rows[::60]), dim=1)
    exact = RetrievalIndex(tmp_path).search(queries, 10)
    approximate = RetrievalIndex(tmp_path, backend="faiss").search(queries, 10)
    same = [len(set(one) & set(other)) for one, other in zip(exact, approximate, strict=True)]
    assert sum(same) >= 0.95 * 10 * len(queries)
    assert [hits[0] for hits in approximate] == [hits[0] for hits in exact]


def test_an_index_is_searched_without_leaving_files_open(tmp_path: Path) -> None:
    """Names are read one by one; a thousand of them open no thousand files."""
    index = build(tmp_path, vectors(30))
    if not _DESCRIPTORS.is_dir():
        pytest.skip("open files are counted by /proc")
    before = files_open_under(tmp_path)
    for _ in range(50):
        index.search(torch.eye(WIDTH), 10)
    assert files_open_under(tmp_path) == before


def files_open_under(folder: Path) -> int:
    """Descriptors of this process that point into a folder; what else it has open comes and goes."""
    targets = [os.path.realpath(each) for each in _DESCRIPTORS.iterdir()]
    return sum(each.startswith(f"{folder.resolve()}{os.sep}") for each in targets)


@pytest.mark.parametrize("step", range(9))  # four files for each of two shards, and the manifest
def test_a_build_that_is_killed_leaves_nothing_half_done(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, left = files.write_whole, iter(range(step + 1))

    def write_or_die(path: Path, write: Callable[[Path], object]) -> None:
        if path.name != "build.json" and next(left) == step:
            path.with_name(f".{path.name}.123").write_bytes(b"half of it")
            raise KeyboardInterrupt
        original(path, write)

    monkeypatch.setattr(files, "write_whole", write_or_die)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, vectors(4), shard_rows=2)
    monkeypatch.undo()
    index = build(tmp_path, vectors(4), shard_rows=2)
    index.verify()
    assert [index.source(number) for number in range(4)] == [f"bilder/{n} ä海.png" for n in range(4)]
    assert not list(tmp_path.glob(".*"))
