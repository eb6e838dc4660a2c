"""Bad input from the command line: file and line, what was wanted, what to do."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from main import ERROR_STATUS, main
from tests.cc3m_folder import NUM_TRAIN, write_cc3m

ORIGINAL = ["--dataset=cc3m", "--val-dataset=cc3m", "--image-dir=data/", "--log-base-dir=runs/", "--print-freq=1"]
SHORT = ["--epochs=1", "--steps_per_epoch=2", "--batch-size=4", "--val_steps_per_epoch=-1", "--val-batch-size=4"]
TINY = ["--opt-version=tiny", "--visual-model=tiny", "--precision=fp32", "--set", "mapper_width=32", "mapper_layers=1"]
COMMAND = [*ORIGINAL, *SHORT, "--num-clip-tokens=12", "--gen-emb-dim=16", *TINY]


@pytest.fixture
def cc3m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with data as the originals' README has it."""
    monkeypatch.chdir(tmp_path)
    return write_cc3m(tmp_path, target_shape=(12, 16))


def line(cc3m: Path, number: int, text: str, split: str = "train") -> None:
    """Replace a line (from 1) of a caption file."""
    path = cc3m / "dataset" / f"cc3m_{split}.tsv"
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n")


def validation_picture(cc3m: Path, picture: bytes | Image.Image) -> None:
    """Replace the picture of line 3 of the validation set, which is read first."""
    path = cc3m / "data" / "cc3m" / "validation" / "val1.jpg"
    path.write_bytes(picture) if isinstance(picture, bytes) else picture.save(path, "PNG")


def cut_short(cc3m: Path) -> None:
    path = cc3m / "data" / "cc3m" / "validation" / "val1.jpg"
    validation_picture(cc3m, path.read_bytes()[:400])


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing column": (lambda d: line(d, 1, "caption\tfile"), r"cc3m_train.tsv:1: wanted the header caption<TAB>image"),
    "wrong separator": (lambda d: line(d, 1, "caption,image"), r"cc3m_train.tsv:1: .*separated by commas, use tabs"),
    "wrong separator in a row": (lambda d: line(d, 3, "a cat,cat.png"), r"cc3m_train.tsv:3: .*got 1 fields; separate"),
    "empty caption": (lambda d: line(d, 4, "\ttrain2"), r"cc3m_train.tsv:4: the caption is empty; fill it in or"),
    "over-long caption": (
        lambda d: line(d, 5, "x" * 5000 + "\ttrain3"),
        r"cc3m_train.tsv:5: .*5000 characters.*shorten",
    ),
    "no caption file": (lambda d: (d / "dataset" / "cc3m_train.tsv").unlink(), r"cc3m_train.tsv is missing; wanted"),
    "unreadable picture": (
        lambda d: validation_picture(d, b"x"),
        r"cc3m_val.tsv:3: .*val1.jpg is no picture.*replace it",
    ),
    "truncated picture": (cut_short, r"cc3m_val.tsv:3: .*val1.jpg is damaged or cut short.*copy it again"),
    "huge picture": (
        lambda d: validation_picture(d, Image.new("1", (9000, 8000))),
        r"cc3m_val.tsv:3: .*val1.jpg has 9000 x 8000 pixels, at most 64000000 are read; shrink it",
    ),
    "no picture": (
        lambda d: (d / "data" / "cc3m" / "validation" / "val1.jpg").unlink(),
        r"cc3m_val.tsv:3: no picture .*val1.*put it there or set --image-dir",
    ),
    "missing target": (
        lambda d: (d / "data" / "cc3m" / "validation" / "clip_embs" / "val1.npy").unlink(),
        r"cc3m_val.tsv:3: no conditioning target .*val1.npy; write it with scripts/preprocess_sd_embeddings.py",
    ),
    "no targets": (
        lambda d: (d / "data" / "cc3m" / "training" / "clip_embs").rename(d / "elsewhere"),
        r"clip_embs is missing: without --diffusion-model.*or name a diffusion model",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_bad_data_end_the_run_with_file_and_line(cc3m: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, message = SPOILED[what]
    spoil(cc3m)
    assert main(COMMAND) == ERROR_STATUS
    assert re.search(message, capsys.readouterr().err)


def test_bad_samples_are_replaced_in_training_and_left_out_in_validation(cc3m: Path) -> None:
    for path in ("training/train1.jpg", "validation/val1.jpg"):
        (cc3m / "data" / "cc3m" / path).write_text("broken")
    line(cc3m, 7, "no tab")
    assert main([*COMMAND, "--exp-name=bad", "--steps-per-epoch=6", "--max-bad-fraction=0.5"]) == 0
    report = [json.loads(row) for row in (cc3m / "runs" / "bad" / "bad_samples.jsonl").read_text().splitlines()]
    found = {(Path(row["source"]).name, row["line"]) for row in report}
    assert found == {("cc3m_train.tsv", 3), ("cc3m_train.tsv", 7), ("cc3m_val.tsv", 3)}
    assert all(row["reason"].startswith(f"{row['source']}:{row['line']}: ") for row in report)
    assert len(report) == 3  # each once, however often it was met


def test_texts_that_are_cut_are_told_of_once(cc3m: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(NUM_TRAIN):
        line(cc3m, number + 2, f"a picture whose caption is longer than others, number {number}\ttrain{number}")
    room = len("a picture of number 1") + 1 + 8  # one id a byte, the beginning of sequence, eight [IMG] tokens
    assert main([*COMMAND, "--exp-name=cut", "--steps-per-epoch=3", f"--max-len={room}"]) == 0
    told = [record.getMessage() for record in caplog.records if "loses its end" in record.getMessage()]
    assert len(told) == 1 and re.search(r"cc3m_train.tsv:\d+: the text is longer than --max-len 30 allows", told[0])
    rows = [json.loads(row) for row in (cc3m / "runs" / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/cut_texts"] for row in rows if "train/cut_texts" in row] == [1, 1, 1]
    assert rows[0]["val/cut_texts"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-tokens=4"], r"has 8 \[IMG\] rows, the model has 4; set num_img_tokens=8 or retrain"),
        (
            ["--ret-emb-dim=64"],
            r"has other sizes than the model: retrieval_heads.*use the settings it was trained with",
        ),
        (["--text-fc-mode=linear"], r"does not fit the model: missing .*unknown mapper"),
    ],
)
def test_another_models_checkpoint_is_refused(
    cc3m: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, "--exp-name=first", "--steps-per-epoch=1"]) == 0
    assert main([*COMMAND, "--exp-name=second", f"--resume={cc3m / 'runs' / 'first'}", *words]) == ERROR_STATUS
    assert re.search(message, capsys.readouterr().err)
