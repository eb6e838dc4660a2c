"""Files on disk: the layouts of the real benchmarks, the same bytes for the same seed, and nothing lost."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gill.errors import ConfigError, DataError
from gill.flatland.captions import read_caption
from gill.flatland.judge import read_picture
from gill.flatland.writer import parts
from scripts import make_flatland

FILES_HASH = "04a138bad0669722cd0e9362af32e804bc16c263478a1b9b713535807501bded"


def write(out: Path, size: int = 30, seed: int = 0) -> Path:
    assert make_flatland.main(["--out", str(out), "--size", str(size), "--seed", str(seed)]) == 0
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("flatland") / "world")


def digest(folder: Path) -> str:
    """Hash of all texts and decoded pixels. JPEG pixels are left out: decoders may differ in the last bit."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".tsv", ".json"}:
            total.update(path.read_bytes())
        elif path.suffix == ".png":
            total.update(np.asarray(Image.open(path)).tobytes())
    return total.hexdigest()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_writes_the_same_bytes(world, tmp_path):
    assert bytes_of(write(tmp_path / "again")) == bytes_of(world)


def test_texts_and_pixels_are_the_same_everywhere(world):
    assert digest(world) == FILES_HASH


def test_captions_tell_what_the_pictures_show(world):
    header, *rows = (world / "dataset" / "cc3m_train.tsv").read_text().splitlines()
    assert header == "caption\timage"
    assert len(rows) == 30
    for row in rows:
        text, name = row.split("\t")
        picture = Image.open(world / "data" / "cc3m" / "training" / name)
        assert read_picture(picture).content() == read_caption(text)


def test_validation_is_a_tenth(world):
    assert len((world / "dataset" / "cc3m_val.tsv").read_text().splitlines()) == 1 + 3
    assert len(list((world / "data" / "cc3m" / "validation").iterdir())) == 3


def test_stories_have_the_layout_of_vist(world):
    vist = json.loads((world / "sis" / "val.story-in-sequence.json").read_text())
    assert set(vist) == {"info", "type", "albums", "images", "annotations"}
    assert len(vist["annotations"]) == 5 * 3
    for position, (annotation,) in enumerate(vist["annotations"]):
        assert annotation["worker_arranged_photo_order"] == position % 5
        assert annotation["story_id"] == str(position // 5)
        assert (world / "sis" / "val_images" / f"{annotation['photo_flickr_id']}.png").is_file()
    assert {image["id"] for image in vist["images"]} == {one["photo_flickr_id"] for (one,) in vist["annotations"]}


def test_dialogues_have_the_layout_of_visdial(world):
    visdial = json.loads((world / "VisualDialog" / "visdial_1.0_val.json").read_text())
    data = visdial["data"]
    assert (visdial["version"], visdial["split"], len(data["dialogs"])) == ("1.0", "val", 3)
    assert not any(question.endswith("?") for question in data["questions"])
    for dialog in data["dialogs"]:
        name = f"VisualDialog_val2018_{dialog['image_id']:012d}.jpg"
        shown = read_picture(Image.open(world / "VisualDialog" / "VisualDialog_val2018" / name))
        assert len(dialog["dialog"]) == 10
        for each in dialog["dialog"]:
            assert len(set(each["answer_options"])) == 100
            assert each["answer_options"][each["gt_index"]] == each["answer"]
            if data["questions"][each["question"]] == "where is it":
                assert data["answers"][each["answer"]] == f"it is the {shown.place}"


def test_dense_annotations_mark_the_answer_and_its_paraphrases(world):
    folder = world / "VisualDialog"
    data = json.loads((folder / "visdial_1.0_val.json").read_text())["data"]
    dense = json.loads((folder / "visdial_1.0_val_dense_annotations.json").read_text())
    assert [row["image_id"] for row in dense] == [dialog["image_id"] for dialog in data["dialogs"]]
    for row, dialog in zip(dense, data["dialogs"], strict=True):
        asked = dialog["dialog"][row["round_id"] - 1]
        assert len(row["gt_relevance"]) == 100
        assert row["gt_relevance"][asked["gt_index"]] == 1
        assert row["gt_relevance"].count(1) == 1
        assert set(row["gt_relevance"]) <= {0, 0.5, 1}


def test_votes_have_the_layout_of_partiprompts(tmp_path):
    out = write(tmp_path / "world", size=400)
    header, *rows = (out / "data" / "PartiPromptsAllDecisions.tsv").read_text().splitlines()
    assert header.split("\t") == ["Prompt", "Category", "Challenge", "Note", "Decisions"]
    stored = {row.split("\t")[0] for row in (out / "dataset" / "cc3m_train.tsv").read_text().splitlines()[1:]}
    contents = {read_caption(text) for text in stored}
    for row in rows:
        prompt, category, _, _, votes = row.split("\t")
        assert (read_caption(prompt) in contents) == (category == "Stored")
        assert len(votes.split(",")) == 5
        assert set(votes.split(",")) <= {"gen", "ret", "same"}
    assert 0.3 < sum("\tStored\t" in row for row in rows) / len(rows) < 0.7


def test_a_stopped_run_is_continued(world, tmp_path):
    out = tmp_path / "stopped"
    first = parts(out, 30, 0)[0]
    for index in range(11):
        first.write(index)
    kept = out / "data" / "cc3m" / "training" / "train_0000003.png"
    written_at = kept.stat().st_mtime_ns
    write(out)
    assert kept.stat().st_mtime_ns == written_at
    assert bytes_of(out) == bytes_of(world)


def test_a_killed_program_leaves_a_folder_that_the_same_command_finishes(world, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, make_flatland.__file__, "--out", str(out), "--size", "30"]
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "data" / "cc3m" / "training" / "train_0000002.png").exists() and program.poll() is None:
        pass
    program.kill()
    program.wait()
    write(out)
    torn = {name for name in bytes_of(out) if Path(name).name.startswith(".")}
    assert {name: data for name, data in bytes_of(out).items() if name not in torn} == bytes_of(world)


def test_another_seed_does_not_overwrite(world, capsys):
    assert make_flatland.main(["--out", str(world), "--size", "30", "--seed", "1"]) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds something else"):
        parts(tmp_path, 10, 0)
    assert bytes_of(tmp_path) == {"thesis.txt": b"mine"}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write into .*file/world"):
        parts(tmp_path / "file" / "world", 10, 0)


def test_a_size_of_zero_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        parts(tmp_path / "world", 0, 0)
    assert not (tmp_path / "world").exists()
