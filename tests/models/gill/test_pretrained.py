"""`from_pretrained`, `save_pretrained`, `push_to_hub`: there and back, complete, and honest about what is missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects
from PIL import Image
from transformers import AutoTokenizer

import gill
from gill.errors import ConfigError, MissingCheckpointError
from gill.mappers import MAPPERS, DecisionHead
from gill.models.gill import Gill, find_folder, find_preset, pretrained, save_decision, save_model
from gill.models.gill.card import write_model_card
from gill.models.gill.trained import located
from gill.parameters import trainable_state
from gill.retrieval import IndexCard, IndexWriter
from tests.models.gill.fakes import CAT, FORCED, FakeFetcher, FakeIndex
from tests.models.gill.tiny_gill import tiny_generator, tiny_model

FLATLAND = Path(__file__).resolve().parents[3] / "checkpoints" / "flatland"


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A model with a decision head and an index of two pictures."""
    folder, model = tmp_path / "model", tiny_model(dtype="float32")
    save_model(folder, model)
    save_decision(folder, DecisionHead(32), model.img_tokens.input_rows, {"macro_f1": 0.5})
    writer = IndexWriter(folder / "index", IndexCard(16), 10)
    for number, asked in writer.missing(["a.png", "b.png"]):
        writer.write(number, asked, ["a.png", "b.png"], np.eye(2, 16, dtype=np.float32))
    writer.finish(2)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), "red").save(folder / "index" / name)
    return folder


class FakeHub:
    """Stands in for the hub's client: what is uploaded can be downloaded."""

    def __init__(self, place: Path) -> None:
        self.place, self.asked = place, SimpleNamespace()

    def __call__(self, token: str | None = None) -> FakeHub:
        self.asked.token = token
        return self

    def create_repo(self, repo_id: str, private: bool | None, exist_ok: bool) -> SimpleNamespace:
        self.asked.private = private
        assert exist_ok
        return SimpleNamespace(repo_id=f"me/{repo_id}")

    def upload_folder(self, repo_id: str, folder_path: str, revision: str | None, commit_message: str) -> object:
        shutil.copytree(folder_path, self.place / repo_id)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def download(self, name: str, allow_patterns: list[str], **settings: object) -> str:
        assert not {"*", "*.py", "*.bin"} & set(allow_patterns), "only what is read without executing it"
        cache = self.place / "cache" / name
        for path in filter_repo_objects(self._files(name), allow_patterns=allow_patterns):
            (cache / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.place / name / path, cache / path)
        return str(cache)

    def _files(self, name: str) -> list[str]:
        folder = self.place / name
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(pretrained, "HfApi", fake)
    monkeypatch.setattr(pretrained, "snapshot_download", fake.download)
    return fake


def test_a_saved_model_comes_back_with_all_that_lies_beside_it(model_folder: Path, tmp_path: Path) -> None:
    first = Gill.from_pretrained(model_folder, device="cpu")
    again = Gill.from_pretrained(first.save_pretrained(tmp_path / "again"), device="cpu")
    before, after = (trainable_state(model.generator.model) for model in (first, again))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert first.generator.model.config == again.generator.model.config
    assert again.generator.images.decision.report == {"macro_f1": 0.5}  # type: ignore[union-attr]
    (image,) = again.generator.generate(CAT, FORCED, 0)
    assert {picture.source for picture in image.retrieved} == {"a.png", "b.png"} and image.generated
    bare = first.save_pretrained(tmp_path / "bare", has_index=False)
    assert not (bare / "index").exists()
    first.save_pretrained(model_folder)  # into its own folder
    assert Gill.from_pretrained(model_folder, device="cpu").generator.images.index is not None


def test_the_card_is_the_hubs_and_is_not_written_over(model_folder: Path, tmp_path: Path) -> None:
    folder = Gill.from_pretrained(model_folder, device="cpu").save_pretrained(tmp_path / "mine")
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "gill" and "arxiv:2305.17216" in (card.data.tags or [])
    assert "| `img_tokens` | 128 |" in card.text and 'from_pretrained("mine")' in card.text
    (folder / "README.md").write_text("my own words")
    Gill.from_pretrained(folder, device="cpu").save_pretrained(folder)
    assert (folder / "README.md").read_text() == "my own words"


def test_a_card_names_the_models_it_is_built_on(tmp_path: Path) -> None:
    card = ModelCard.load(write_model_card(tmp_path, tiny_model(), find_preset("fromage").model, "me/mine"))
    assert card.data.base_model == ["facebook/opt-6.7b", "openai/clip-vit-large-patch14"]
    assert "arxiv:2301.13823" in (card.data.tags or []) and 'gill.Fromage.from_pretrained("me/mine")' in card.text


def test_what_is_uploaded_can_be_downloaded_and_used(model_folder: Path, hub: FakeHub) -> None:
    model = Gill.from_pretrained(model_folder, device="cpu")
    assert model.push_to_hub("mine", private=True, token="t") == "https://hub/me/mine/commit/1"
    assert (hub.asked.private, hub.asked.token) == (True, "t")
    again = gill.load_gill("me/mine", device="cpu")
    wanted = model.generator.conditioning_of([CAT]).conditioning
    torch.testing.assert_close(again.generator.conditioning_of([CAT]).conditioning, wanted)


def test_frozen_folders_travel_with_the_model_or_the_upload_is_refused(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = tiny_generator(dtype="float32")
    local = {"language": str(FLATLAND / "language"), "whitening": str(FLATLAND / "whitening.safetensors")}
    generator.model.config = replace(generator.model.config, **local)
    with pytest.raises(ConfigError, match=r"folders of this machine \(.*flatland/language\).*has_frozen_parts=True"):
        Gill(generator).push_to_hub("mine")
    Gill(generator).push_to_hub("mine", has_frozen_parts=True)
    folder = find_folder("me/mine")
    written = json.loads((folder / "model.json").read_text())["config"]
    assert (written["language"], written["whitening"]) == ("language", "whitening.safetensors")
    monkeypatch.chdir(tmp_path)
    found = located(replace(generator.model.config, language="language", whitening="whitening.safetensors"), folder)
    assert Path(found.whitening).is_file()
    assert AutoTokenizer.from_pretrained(found.language).chat_template, "what the tokenizer needs came too"


def test_what_cannot_be_saved_or_found_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="only an index on disk can be saved, not FakeIndex"):
        Gill(tiny_generator(dtype="float32", index=FakeIndex(30), fetcher=FakeFetcher())).save_pretrained(tmp_path)
    with pytest.raises(MissingCheckpointError, match=r"there is no folder a/b/c; give one, or a model's name"):
        find_folder("a/b/c")

    def refuse(*words: object, **settings: object) -> None:
        raise ConnectionError("no network here\nmore")

    monkeypatch.setattr(pretrained, "snapshot_download", refuse)
    with pytest.raises(MissingCheckpointError, match=r"me/none is no folder here.*no network here; give"):
        find_folder("me/none")


@pytest.mark.parametrize("kind", MAPPERS)
def test_a_saved_model_draws_whatever_its_mapper(kind: str, tmp_path: Path) -> None:
    model = tiny_model(dtype="float32", mapper=kind)
    save_model(tmp_path, model)
    again = gill.load_gill(tmp_path, load_ret_embs=False, device="cpu")
    assert again.generator.images.drawer is not None
    wanted = model.map_conditioning(torch.ones(1, model.config.num_img_tokens, model.language.hidden_width))
    found = again.generator.model.map_conditioning(torch.ones(1, model.config.num_img_tokens, 32))
    torch.testing.assert_close(found, wanted)
