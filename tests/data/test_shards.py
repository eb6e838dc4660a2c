"""WebDataset shards: any row in any order, damage kept apart, and a training that reads them."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from gill.data import ShardFolder, find_shards
from gill.errors import ConfigError, DataError
from main import ERROR_STATUS, main


def add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def picture(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_shards(folder: Path, num_shards: int = 3, num_samples: int = 4) -> list[Path]:
    """Captions as text and as JSON, in turn, with a member that is neither picture nor caption."""
    folder.mkdir()
    for number in range(num_shards):
        with tarfile.open(folder / f"{number:05}.tar", "w") as shard:
            for sample in range(num_samples):
                row = number * num_samples + sample
                add(shard, f"{row:09}.png", picture(row))
                if row % 2:
                    add(shard, f"{row:09}.json", json.dumps({"caption": f"caption {row}", "url": "x"}).encode())
                else:
                    add(shard, f"{row:09}.txt", f"caption\n {row}".encode())
                add(shard, f"{row:09}.cls", b"3")
    return find_shards(folder)


def read(source: ShardFolder) -> list[tuple[str, int]]:
    examples = [source.read(index) for index in reversed(range(len(source)))]
    return [(e.record.caption, e.image.getpixel((0, 0))[0]) for e in examples][::-1]  # type: ignore[union-attr,index]


def test_every_row_is_read_in_any_order(tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "shards")
    wanted = [(f"caption {row}", row) for row in range(12)]
    assert read(ShardFolder(paths)) == wanted
    assert len(list((tmp_path / "shards").glob("*.index.npy"))) == 3
    again = ShardFolder(paths)  # from the indices
    assert read(again) == wanted
    assert again.place(0) == (str(paths[0]), 1) and again.place(5) == (str(paths[1]), 2)
    assert again.lengths.tolist()[::2] == [len(f"caption\n {row}") for row in range(0, 12, 2)]


def test_an_index_of_another_file_is_not_believed(tmp_path: Path) -> None:
    (path,) = write_shards(tmp_path / "shards", num_shards=1)
    ShardFolder([path])
    write_shards(tmp_path / "other", num_shards=1, num_samples=2)[0].replace(path)
    assert len(ShardFolder([path])) == 2
    path.with_name(f"{path.name}.index.npy").write_bytes(b"torn")
    assert len(ShardFolder([path])) == 2


def test_a_damaged_shard_keeps_what_stands_before_the_damage(tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "shards")
    paths[1].write_bytes(paths[1].read_bytes()[:4000])  # within the second sample
    paths[2].write_bytes(b"no tar at all")
    for _ in range(2):  # told again at every start
        source = ShardFolder(paths)
        assert [row for _, row in read(source)] == [0, 1, 2, 3, 4]
        assert [(Path(bad.source).name, bad.line) for bad in source.bad_rows] == [("00001.tar", 2), ("00002.tar", 1)]
        assert all("damaged from here on" in bad.reason for bad in source.bad_rows)


def test_samples_that_lack_something_are_reported(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as shard:
        add(shard, "a/1.png", picture(1))
        add(shard, "a/2.txt", b"words")
        add(shard, "a/3.png", picture(3))
        add(shard, "a/3.txt", b"words")
        add(shard, "a/4.png", picture(4))
        add(shard, "a/4.json", b'{"text": 1}')
    source = ShardFolder([tmp_path / "0.tar"])
    assert [bad.line for bad in source.bad_rows] == [1, 2] and len(source) == 2
    assert "a/1 has no caption" in source.bad_rows[0].reason and "a/2 has no picture" in source.bad_rows[1].reason
    assert source.read(0).record.caption == "words"
    with pytest.raises(DataError, match=r"0\.tar:4: no caption that can be read"):
        source.read(1)


def test_a_shard_that_changes_or_vanishes_is_named(tmp_path: Path) -> None:
    paths = write_shards(tmp_path / "shards", num_shards=2)
    source = ShardFolder(paths)
    paths[0].write_bytes(b"something else")
    paths[1].unlink()
    with pytest.raises(DataError, match=r"00000\.tar:1: the shard has changed"):
        source.read(0)
    with pytest.raises(DataError, match=r"00001\.tar:1: the shard can no longer be read"):
        source.read(4)
    with pytest.raises(DataError, match="no pair of picture and caption"):
        ShardFolder(paths[:1])
    with pytest.raises(ConfigError, match=r"no \.tar files"):
        ShardFolder([])


def test_a_training_reads_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_shards(tmp_path / "shards")[0].parent
    words = ["--preset=debug", f"--dataset={folder}", f"--val-dataset={folder}", f"--log-base-dir={tmp_path}"]
    quick = ["--exp-name=run", "--val-batch-size=4", "--set", "num_captions=0", "num_panels=0"]
    assert main([*words, "--diffusion-model=tiny", *quick]) == 0
    assert main([*words, "--num-clip-tokens=12", "--gen-emb-dim=16", *quick]) == ERROR_STATUS
    assert "name a --diffusion-model" in capsys.readouterr().err
