"""The check of an installation passes here, and each of its checks can fail."""

import re
from pathlib import Path

import pytest

from gill import doctor
from gill.backbones import tiny_tokenizer
from gill.errors import ConfigError, TrainingError

REPOSITORY = Path(__file__).resolve().parents[1]


def test_this_installation_is_all_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:2] for line in lines] == ["ok"] * 5
    assert "losses 17.829450 and 18.202863 as stored" in lines[2] and "gloo" in lines[3]


def test_versions_are_those_of_the_requirements() -> None:
    text = (REPOSITORY / "requirements.txt").read_text("utf-8")
    wanted = dict(re.findall(r"^([a-z_]+)[=>]=([\d.]+)", text, re.MULTILINE))
    assert {name: wanted[name] for name in doctor.NEEDED} == doctor.NEEDED


@pytest.mark.parametrize(("name", "version"), [("numpy", "1.26.4"), ("torch", "2.14.0"), ("diffusers", "")])
def test_a_wrong_version_is_named(name: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda asked: version if asked == name else installed(asked))
    with pytest.raises(ConfigError, match=rf"{name} {version or 'missing'}, wanted .*pip install"):
        doctor.check_versions()


def test_another_loss_or_a_moved_weight_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = doctor.STORED_LOSSES
    for found in (([stored[0], stored[1] * 1.0001], False), (list(stored), True)):
        monkeypatch.setattr(doctor, "train_two_steps", lambda device, found=found: found)
        with pytest.raises(TrainingError):
            doctor.check_training()


def test_a_tokenizer_that_knows_a_name_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "good")
    tokenizer.add_tokens(["[IMG3]"])
    tokenizer.save_pretrained(tmp_path / "bad")
    assert "ids" in doctor.check_img_tokens(str(tmp_path / "good"))
    assert doctor.main(["--language", str(tmp_path / "bad")]) == 1
    assert "FAIL [IMG] tokens" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="give a hub name or a local folder"):
        doctor.check_img_tokens(str(tmp_path / "none"))
