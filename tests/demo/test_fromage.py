"""A FROMAGe of Flatland, untrained, in the demo and in the notebook: fetched pictures, and none that are drawn."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import gill
from demo.chat import Conversation, reply
from demo.serving import offer_of
from gill.models.gill import Fromage, find_preset, load_model, save_model
from scripts.extract_img_embs import main as extract
from scripts.make_flatland_gallery import main as make_gallery
from tests.demo.test_notebook import cells

NUM_STORED = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, and an index that carries its pictures."""
    place = tmp_path_factory.mktemp("fromage") / "model"
    config = find_preset("fromage-flatland").model
    save_model(place, load_model(config)[0])
    pictures = place / "index" / "pictures.zip"
    assert make_gallery([str(pictures), f"--size={NUM_STORED}"]) == 0
    assert extract([str(pictures), str(place / "index"), f"--model={place}"]) == 0
    return place


@pytest.fixture(scope="module")
def fromage(folder: Path) -> Fromage:
    return gill.load_fromage(folder, device="cpu")


def test_a_prompt_that_ends_in_ret_is_answered_by_pictures(fromage: Fromage) -> None:
    prompt = [Image.new("RGB", (64, 64), "red"), "a small one [RET]"]
    text, pictures = fromage.generate_for_images_and_texts(prompt, max_img_per_ret=3)
    assert (text, [picture.size for picture in pictures]) == ("a small one [RET]", [(64, 64)] * 3)


def test_the_demo_shows_as_many_images_as_its_slider_says(folder: Path, fromage: Fromage, tmp_path: Path) -> None:
    offer = offer_of(fromage.generator, folder, tmp_path)
    assert (offer.can_draw, offer.can_retrieve, offer.defaults.num_images) == (False, True, 2)
    asked = Conversation().asked("a small red star at the top left of the sea.", [])
    for number in (0, 1, 3):
        settings = replace(offer.defaults, num_images=number, image_frequency=100.0)  # an image at every word
        *_, said = reply(asked, fromage.generator, settings, tmp_path)
        pictures = [part for part in said.messages[-1].parts if part.picture]
        assert len(pictures) == number
        assert all("retrieved, score" in part.remark for part in pictures)


def test_the_notebook_uses_it_when_it_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "notebook.py"
    beginning, described, *_, ending = cells()
    script.write_text("\n\n".join((beginning, described, ending)), encoding="utf-8")
    monkeypatch.setenv("FROMAGE_MODEL", str(folder))
    found = runpy.run_path(str(script))["found"]
    assert [type(picture) for picture in found] == [Image.Image] * 3
