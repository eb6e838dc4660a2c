"""The program that builds an index: every kind of source, bad pictures, and a run that is stopped and continued."""

import json
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gill.backbones import tiny_image_transform
from gill.models.gill import GillModel, save_model
from gill.models.gill.image_embedder import load_image_embedder
from gill.retrieval import PictureFetcher, RetrievalIndex, fingerprint
from scripts import extract_img_embs
from scripts.extract_img_embs import main
from tests.models.gill.tiny_gill import tiny_model
from tests.retrieval.picture_server import png, reply, serving


@pytest.fixture(scope="module")
def model() -> GillModel:
    """A tiny model."""
    return tiny_model(dtype="float32")


@pytest.fixture
def saved(model: GillModel, tmp_path: Path) -> Path:
    """Its folder."""
    save_model(tmp_path / "model", model)
    return tmp_path / "model"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures that differ, one of them in a folder below."""
    (tmp_path / "photos" / "below").mkdir(parents=True)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 20, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / ("below" if number == 5 else "") / f"{number}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def expected(model: GillModel, picture: Path) -> torch.Tensor:
    """float[1, E] as the whole model embeds a picture."""
    with Image.open(picture) as image:
        pixels = tiny_image_transform()(image)[None]
    with torch.no_grad():
        return model.retrieval_heads.embed_image(model.image_features(pixels))


def sources(index: RetrievalIndex) -> list[str]:
    """All of them, in order."""
    return [index.source(number) for number in range(index.num_images)]


def test_a_folder_becomes_an_index_that_finds_its_pictures(
    model: GillModel, saved: Path, photos: Path, tmp_path: Path
) -> None:
    model.train()  # dropout is for training only
    assert main([str(photos), str(tmp_path / "index"), f"--model={saved}", "--shard-rows=4", "--batch-size=3"]) == 0
    index = RetrievalIndex(tmp_path / "index")
    index.verify()
    head = model.eval().retrieval_heads.image
    index.check_model(fingerprint(head.weight, head.bias))
    assert sources(index) == ["0.png", "1.png", "2.png", "3.png", "4.png", "below/5.png"]
    for number, name in enumerate(sources(index)):
        hit = index.search(expected(model, photos / name), 1)[0][0]
        assert (hit.source, hit.score) == (name, pytest.approx(1, abs=1e-5)), number
        assert PictureFetcher([photos]).fetch(hit.source).size == (20, 12)


def test_tables_lists_and_archives_name_their_pictures(saved: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("caption\timage\nb\t2\na\t0.png\nagain\t2\nc\tbelow/5.png\n")
    (tmp_path / "list.txt").write_text("3.png\n\n1.png\n")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        for number in (4, 1):
            packed.write(photos / f"{number}.png", f"inner/{number}.png")
        packed.write(photos / "notes.txt", "notes.txt")
    wanted = {
        "rows.tsv": ["2.png", "0.png", "below/5.png"],
        "list.txt": ["3.png", "1.png"],
        "all.zip": ["all.zip/inner/1.png", "all.zip/inner/4.png"],
    }
    for name, found in wanted.items():
        out = tmp_path / f"index of {name}"
        words = [str(tmp_path / name), str(out), f"--model={saved}", "--dtype=float16"]
        assert main(words if name == "all.zip" else [*words, f"--image-dir={photos}"]) == 0
        assert sources(RetrievalIndex(out)) == found
    assert PictureFetcher([tmp_path]).fetch("all.zip/inner/4.png").size == (20, 12)


def test_addresses_are_fetched_when_that_is_allowed(
    model: GillModel, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(gone=reply("404 Not Found")) as server:
        places = [server.url(name) for name in ("/a.png", "/gone", "/b.png")]
        (tmp_path / "addresses.txt").write_text("\n".join(places))
        monkeypatch.setattr(extract_img_embs, "PictureFetcher", partial(PictureFetcher, policy=server.allows))
        words = [str(tmp_path / "addresses.txt"), str(tmp_path / "index"), f"--model={saved}", "--max-bad-fraction=0.5"]
        assert main([*words, "--fetch"]) == 0
        index = RetrievalIndex(tmp_path / "index")
        assert sources(index) == [places[0], places[2]]
        (tmp_path / "a.png").write_bytes(png())
        best = index.search(expected(model, tmp_path / "a.png"), 1)[0][0]
        assert best.score == pytest.approx(1, abs=1e-5)
        assert PictureFetcher(allow_network=True, policy=server.allows).fetch(best.source).size == (3, 2)


def test_workers_change_nothing(saved: Path, photos: Path, tmp_path: Path) -> None:
    for workers in (0, 1):
        words = [
            str(photos),
            str(tmp_path / str(workers)),
            f"--model={saved}",
            f"--workers={workers}",
            "--batch-size=2",
        ]
        assert main(words) == 0
    for path in (tmp_path / "0").iterdir():
        assert (tmp_path / "1" / path.name).read_bytes() == path.read_bytes()


def test_a_stopped_run_is_continued_and_ends_with_the_same_bytes(
    saved: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def words(name: str) -> list[str]:
        return [str(photos), str(tmp_path / name), f"--model={saved}", "--shard-rows=2", "--batch-size=1"]

    assert main(words("whole")) == 0
    original, asked = extract_img_embs.embed, []

    def stop_in_the_second_shard(embedder: object, pictures: object, names: list[str], *rest: object) -> object:
        asked.append(names)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return original(embedder, pictures, names, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(extract_img_embs, "embed", stop_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        main(words("stopped"))
    assert main(words("stopped")) == 0
    assert asked == [["0.png", "1.png"], ["2.png", "3.png"], ["2.png", "3.png"], ["4.png", "below/5.png"]]
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "stopped" / path.name).read_bytes() == path.read_bytes()


def test_bad_pictures_are_left_out_counted_and_listed(
    saved: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "3.png").write_bytes(b"broken")
    (tmp_path / "secret.png").write_bytes((photos / "0.png").read_bytes())
    rows = "".join(f"a caption\t{name}\n" for name in ("0.png", "3.png", "gone.png", "../secret.png", "http://a/b.png"))
    (tmp_path / "rows.tsv").write_text("caption\timage\n" + rows + "a caption without a picture\n")
    words = [str(tmp_path / "rows.tsv"), str(tmp_path / "index"), f"--model={saved}", f"--image-dir={photos}"]
    assert main(words) == 2
    assert "rows.tsv:7" in capsys.readouterr().err
    assert main([*words, "--max-bad-fraction=0.9"]) == 0
    assert "1 pictures, 5 bad ones left out" in capsys.readouterr().out
    assert sources(RetrievalIndex(tmp_path / "index")) == ["0.png"]
    report = [json.loads(line) for line in (tmp_path / "index" / "bad_samples.jsonl").read_text().splitlines()]
    reasons = {row["line"]: row["reason"] for row in report}
    assert set(reasons) == {3, 4, 5, 6, 7}
    for line, words_of_it in ((3, "no readable"), (4, "no picture"), (5, "outside"), (6, "network is off")):
        assert words_of_it in reasons[line]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone", None, "is missing; wanted a folder"),
        ("empty.txt", b"\n", "names no picture"),
        ("latin.txt", b"\xe4.png\n", "not UTF-8"),
        ("broken.zip", b"PK", r"no .zip file that can be read"),
        ("table.tsv", b"image,caption\n", "use tabs"),
    ],
)
def test_sources_that_are_none_are_named(
    name: str, content: bytes | None, message: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / name), str(tmp_path / "index"), f"--model={saved}"]) == 2
    assert message in capsys.readouterr().err


def test_only_the_picture_half_of_a_model_is_loaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a language model was loaded")

    for place in ("gill.backbones.tiny.tiny_language_model", "gill.models.gill.loading.tiny_language_model"):
        monkeypatch.setattr(place, refuse)
    embedder, _ = load_image_embedder(saved)
    assert {name for name, _ in embedder.named_children()} == {"tower", "head"}


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "python scripts/extract_img_embs.py photos/ my_index --model" in shown
