"""Released embedding files: every way in which they were pickled is read, and nothing in them is executed."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from gill.errors import DataError, MissingFileError
from gill.retrieval import RetrievalIndex, import_released, read_released_embeddings

PATHS = ["http://a.example/1.jpg", "http://b.example/2 ä.jpg", "http://c.example/3.jpg"]
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
LAYOUTS = {
    "list of arrays, as GILL": list(ROWS),
    "one array, as FROMAGe": ROWS,
    "one array, columns first": np.asfortranarray(ROWS),
    "big-endian": ROWS.astype(">f4"),
    "half": [row.astype(np.float16) for row in ROWS],
    "double": ROWS.astype(np.float64),
    "tensors, as the extraction script": [row.clone() for row in torch.from_numpy(ROWS).bfloat16()],
    "rows of one tensor": list(torch.from_numpy(ROWS).half()),
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")  # by pickling a tensor, not by reading it
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_that_was_released_is_read(layout: str, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "cc3m_embeddings.npy"
    path.write_bytes(pickle.dumps({"paths": PATHS, "embeddings": LAYOUTS[layout]}, protocol))
    found = read_released_embeddings(path)
    assert found.paths == PATHS
    assert found.rows.dtype == np.float32
    np.testing.assert_array_equal(found.rows, ROWS)


def test_files_of_older_numpy_are_read(tmp_path: Path) -> None:
    old = pickle.dumps({"paths": PATHS, "embeddings": ROWS}, 2).replace(b"numpy._core", b"numpy.core")
    (tmp_path / "e.pkl").write_bytes(old)
    np.testing.assert_array_equal(read_released_embeddings(tmp_path / "e.pkl").rows, ROWS)


def test_released_files_become_one_index_of_unit_rows(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[1] = [0, np.nan, 0, 0]
    for name, embeddings in (("cc3m_embeddings1.npy", list(ROWS)), ("cc3m_embeddings2.npy", list(rows))):
        (tmp_path / name).write_bytes(pickle.dumps({"paths": PATHS, "embeddings": embeddings}))
    files = sorted(tmp_path.glob("cc3m_embeddings*.npy"))
    assert import_released(files, tmp_path / "index") == (5, 1)
    index = RetrievalIndex(tmp_path / "index")
    index.verify()
    assert [index.source(number) for number in range(5)] == [*PATHS, PATHS[0], PATHS[2]]
    query = torch.from_numpy(ROWS[2] / np.linalg.norm(ROWS[2]))
    (hits,) = index.search(query[None], 2)
    assert [hit.source for hit in hits] == [PATHS[2]] * 2
    assert hits[0].score == pytest.approx(1, abs=1e-6)


def test_pictures_without_a_usable_name_are_left_out(tmp_path: Path) -> None:
    paths = ["good.png", "half a character \ud800", "x" * 9000]
    (tmp_path / "e.npy").write_bytes(pickle.dumps({"paths": paths, "embeddings": list(ROWS)}))
    assert import_released([tmp_path / "e.npy"], tmp_path / "index") == (1, 2)


def test_files_of_different_widths_do_not_mix(tmp_path: Path) -> None:
    for name, rows in (("a.npy", ROWS), ("b.npy", ROWS[:, :3])):
        (tmp_path / name).write_bytes(pickle.dumps({"paths": PATHS, "embeddings": rows}))
    with pytest.raises(DataError, match=r"wanted files of one width, got \[3, 4\]"):
        import_released([tmp_path / "a.npy", tmp_path / "b.npy"], tmp_path / "index")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"paths": PATHS}, "'embeddings'"),
        ([1, 2], "no embedding file"),
        ({"paths": PATHS[:2], "embeddings": ROWS}, "one picture for each of its 3"),
        ({"paths": [1, 2, 3], "embeddings": ROWS}, "one picture for each"),
        ({"paths": [], "embeddings": []}, "no embedding file"),
        ({"paths": PATHS, "embeddings": ROWS.astype(np.int64)}, "type 'i8'"),
        ({"paths": PATHS, "embeddings": ROWS.astype(object)}, "type 'O8'"),
        ({"paths": PATHS, "embeddings": ROWS[0]}, r"rows of numbers, got an array of \(4,\)"),
        ({"paths": PATHS, "embeddings": [ROWS[0], ROWS[0], ROWS[0, :3]]}, "no embedding file"),
        ({"paths": PATHS, "embeddings": [1.0, 2.0, 3.0]}, "no embedding file"),
    ],
)
def test_other_contents_are_refused(content: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "e.npy").write_bytes(pickle.dumps(content, 4))
    with pytest.raises(DataError, match=message):
        read_released_embeddings(tmp_path / "e.npy")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="wanted a cc3m_embeddings file"):
        read_released_embeddings(tmp_path / "e.npy")


class Payload:
    """Creates a file when it is unpickled by a reader that trusts."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_one_number_is_not_read_as_a_billion(tmp_path: Path) -> None:
    """Strides of nothing make a tensor of any size of it, which would be 10 GB as an index."""
    wide = torch.zeros(1).expand(50_000, 50_000)
    (tmp_path / "e.npy").write_bytes(pickle.dumps({"paths": ["a.png"] * 50_000, "embeddings": wide}))
    assert (tmp_path / "e.npy").stat().st_size < 1_000_000
    with pytest.raises(DataError, match="of 1 numbers"):
        read_released_embeddings(tmp_path / "e.npy")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_payloads_are_not_executed(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for number, content in enumerate((Payload(mark), {"paths": [Payload(mark)], "embeddings": [Payload(mark)]})):
        path = tmp_path / f"{number}.npy"
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(DataError, match=r"without executing code in it \(it asks for"):
            read_released_embeddings(path)
    assert not mark.exists()
    pickle.loads((tmp_path / "0.npy").read_bytes())
    assert mark.exists()  # the payload is a real one


@pytest.mark.parametrize(
    "module_and_name",
    [
        "os system",
        "builtins eval",
        "builtins getattr",
        "numpy.core.multiarray fromfile",
        "numpy load",
        "torch load",
        "torch._utils _rebuild_tensor",
        "torch.storage.torch load",
        "functools partial",
        "copyreg _reconstructor",
        "pickle loads",
        "gill.retrieval.importing pickle.loads",
    ],
)
@pytest.mark.parametrize("how", ["call", "instance"])
def test_no_name_beyond_the_table_is_looked_up(module_and_name: str, how: str, tmp_path: Path) -> None:
    module, name = module_and_name.encode().split()
    call = b"c" + module + b"\n" + name + b"\n(S'touch executed'\ntR."
    instance = b"(S'touch executed'\ni" + module + b"\n" + name + b"\n."
    (tmp_path / "e.npy").write_bytes(call if how == "call" else instance)
    with pytest.raises(DataError, match="it asks for"):
        read_released_embeddings(tmp_path / "e.npy")


@pytest.mark.parametrize(
    "content",
    {
        "nothing": b"",
        "no pickle": b"PK\x03\x04 a zip",
        "numpy file": b"\x93NUMPY\x01\x00",
        "cut short": pickle.dumps({"paths": PATHS, "embeddings": ROWS}, 4)[:-20],
        "claims 2**62 bytes": b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b".",
        "claims a memo of 2**31 entries": b"\x80\x04]r" + struct.pack("<I", 2**31 - 1) + b".",
        "a whole number of 2**31 bytes": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        "a persistent id": b"\x80\x02U\x04evilQ.",
        "an extension": b"\x80\x02\x82\x01.",
        "sets an attribute of a stand-in": b"cnumpy\ndtype\n}S'__code__'\nI1\nsb.",
        "a storage that is a payload": b"ctorch.storage\n_load_from_bytes\n(C\x17cos\nsystem\n(S'echo'\ntR.tR.",
        "an array without a type": b"cnumpy.core.numeric\n_frombuffer\n(C\x04abcdNK\x01S'C'\ntR.",
        "an array of other bytes": b"cnumpy.core.multiarray\n_reconstruct\n)R(I1\nK\x01NI00\nC\x04abcdtb.",
        "deeply nested": b"(" * 200_000 + b"t" * 200_000 + b".",
        "a list within itself": b"\x80\x02]q\x00h\x00a.",
    }.items(),
    ids=lambda item: item[0],
)
def test_malformed_pickles_are_refused(content: tuple[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "e.npy").write_bytes(content[1])
    with pytest.raises(DataError, match="no embedding file"):
        read_released_embeddings(tmp_path / "e.npy")
