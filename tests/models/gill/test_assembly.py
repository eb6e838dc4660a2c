"""Models from folders of every kind, ours and released, with what lies beside them."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import gill
from gill.backbones import Clip
from gill.errors import CheckpointError, ConfigError, DataError, MissingCheckpointError
from gill.mappers import DecisionHead
from gill.models.gill import (
    Gill,
    build,
    export_released,
    find_preset,
    load_generator,
    save_decision,
    save_model,
    write_decision,
)
from gill.models.gill.released import DECISION_NAME
from gill.models.gill.trained import located
from gill.retrieval import IndexCard, IndexWriter, fingerprint
from gill.types import GenerationOptions, Segment
from tests.models.gill.fakes import CAT, FORCED, FakeDrawer, plain
from tests.models.gill.tiny_gill import tiny_generator, tiny_model

FLATLAND = Path(__file__).resolve().parents[3] / "checkpoints" / "flatland"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "model", tiny_model(dtype="float32"))
    return tmp_path / "model"


def test_a_saved_model_answers_as_before_it_was_saved(saved: Path) -> None:
    wanted = tiny_generator(dtype="float32").conditioning_of([CAT])
    model = gill.load_gill(saved, device="cpu")
    found = model.generator.conditioning_of([CAT])
    torch.testing.assert_close(found.conditioning, wanted.conditioning)
    assert model.generator.model.conditioning is None, "the text encoder only makes training targets"
    (image,) = model.generator.generate(CAT, FORCED, 0)
    assert image.generated[0].source == "seed 0", "drawn by the tiny pipeline"
    assert gill.load_gill(saved, dtype=torch.float64, device="cpu").generator.next_logits([CAT]).dtype == torch.float64


def test_the_diffusion_model_is_not_loaded_before_something_is_drawn(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original always loads it."""
    loads: list[str] = []
    monkeypatch.setattr("gill.models.gill.assembly.tiny_drawer", lambda **settings: loads.append("x") or FakeDrawer())
    generator = load_generator(saved)
    generator.generate(CAT, GenerationOptions(num_words=3, max_num_images=0), 0)
    assert loads == []
    for _ in range(2):
        generator.generate(CAT, FORCED, 0)
    assert loads == ["x"]


def test_a_model_of_stored_targets_draws_though_nothing_made_its_targets(tmp_path: Path) -> None:
    """As the originals train: no diffusion model is in memory, and Stable Diffusion draws afterwards."""
    debug = find_preset("debug").model
    config = replace(debug, stores_targets=True, conditioning_length=12, conditioning_width=16)
    assert config.stored_target_shape == (12, 16)
    task, encoder = build(config, max_tokens=64)
    assert task.model.conditioning is None and encoder.conditioning is None
    save_model(tmp_path, task.model)
    (image,) = load_generator(tmp_path).generate(CAT, FORCED, 0)
    assert image.generated[0].source == "seed 0"


def test_a_released_folder_is_loaded_with_its_decision_and_embeddings(tmp_path: Path) -> None:
    model = tiny_model(dtype="float32")
    export_released(tmp_path, model)
    head = DecisionHead(32)
    write_decision(tmp_path / DECISION_NAME, head)
    rows = list(torch.randn(7, 16, generator=torch.Generator().manual_seed(0)).numpy())
    paths = [f"{number}.png" for number in range(7)]
    (tmp_path / "cc3m_embeddings.npy").write_bytes(pickle.dumps({"paths": paths, "embeddings": rows}))
    for number in range(7):
        plain(number).save(tmp_path / f"{number}.png")
    loaded = gill.load_gill(tmp_path, device="cpu", dtype=torch.float32, changes={"diffusion": "tiny"})
    image = loaded.generate_for_images_and_texts(["a cat"], num_words=1, ret_scale_factor=100.0)[1]
    assert len(image["ret"]) == 3 and image["decision"][1][0] not in (0.0, 0.5, 1.0)
    query = loaded.generator.conditioning_of([CAT]).queries[0]
    cosines = torch.nn.functional.normalize(torch.tensor(np.array(rows)), dim=-1) @ query
    assert image["ret"][0][2] == pytest.approx(float(cosines.max()), abs=1e-5)
    assert gill.load_gill(tmp_path, load_ret_embs=False, device="cpu").generator.images.index is None
    undecided = gill.load_gill(tmp_path, decision_model_fn=None, device="cpu")
    assert undecided.generator.images.decision is None


def write_index(place: Path, model: str = "") -> None:
    """An index of a.png and b.png."""
    writer = IndexWriter(place, IndexCard(16, model=model), 10)
    for number, asked in writer.missing(["a.png", "b.png"]):
        writer.write(number, asked, ["a.png", "b.png"], np.eye(2, 16, dtype=np.float32))
    writer.finish(2)


def test_an_index_and_a_decision_of_our_own_are_found(saved: Path) -> None:
    model = tiny_model(dtype="float32")
    save_decision(saved, DecisionHead(32), model.img_tokens.input_rows, {})
    own = fingerprint(model.retrieval_heads.image.weight, model.retrieval_heads.image.bias)
    for place, name, folder in (("index", own, saved), ("index", "of another model", saved.parent / "other")):
        if folder != saved:
            save_model(folder, model)
        write_index(folder / place, name)
    plain(1).save(saved / "index" / "a.png")
    plain(2).save(saved / "b.png")
    (image,) = load_generator(saved).generate(CAT, FORCED, 0)
    assert {picture.source for picture in image.retrieved} == {"a.png", "b.png"}
    assert image.probability_generated is not None
    with pytest.raises(ConfigError, match="other weights"):
        load_generator(saved.parent / "other")


def test_frozen_parts_are_found_above_the_models_folder(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parts/language", "tiny", "model/own", "own", "elsewhere"):
        (saved.parent / name).mkdir(parents=True)
    monkeypatch.chdir(saved.parent / "elsewhere")
    found = located(replace(find_preset("debug").model, language="parts/language", diffusion="own"), saved)
    assert found.language == str(saved.parent / "parts/language")
    assert found.vision == "tiny", "a name of random parts, whatever folder is called so"
    assert found.diffusion == str(saved / "own"), "the model's own folder comes first"


def test_a_stopped_import_of_released_embeddings_is_continued(tmp_path: Path) -> None:
    export_released(tmp_path, tiny_model(dtype="float32"))
    rows = list(np.eye(3, 16, dtype=np.float32))
    content = pickle.dumps({"paths": ["a.png", "b.png", "c.png"], "embeddings": rows})
    (tmp_path / "cc3m_embeddings.npy").write_bytes(content)
    (tmp_path / "index").mkdir()  # as a process leaves it that was killed before its first shard
    loaded = gill.load_gill(tmp_path, device="cpu", dtype=torch.float32, changes={"diffusion": "tiny"})
    assert loaded.generator.images.index.num_images == 3  # type: ignore[union-attr]


def test_embeddings_that_took_the_place_of_imported_ones_are_not_passed_over(tmp_path: Path) -> None:
    export_released(tmp_path, tiny_model(dtype="float32"))
    released = tmp_path / "cc3m_embeddings.npy"

    def load() -> Gill:
        return gill.load_gill(tmp_path, device="cpu", dtype=torch.float32, changes={"diffusion": "tiny"})

    for first in ("a.png", "b.png"):
        content = {"paths": [first, "c.png"], "embeddings": list(np.eye(2, 16, dtype=np.float32))}
        released.write_bytes(pickle.dumps(content))
        if first == "b.png":
            with pytest.raises(DataError, match=r"was imported from cc3m_embeddings.npy, .* remove .*index"):
                load()
            shutil.rmtree(tmp_path / "index")
        assert load().generator.images.index.source(0) == first  # type: ignore[union-attr]
        load()
    released.unlink()
    assert load().generator.images.index is not None, "the index stands on its own"


def test_what_is_not_there_or_does_not_fit_is_named(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(MissingCheckpointError, match="holds no best checkpoint"):
        gill.load_gill(tmp_path, device="cpu")
    write_decision(saved / DECISION_NAME, DecisionHead(4096))
    with pytest.raises(CheckpointError, match="states of 4096 numbers, the language model has 32"):
        gill.load_gill(saved, device="cpu")


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_a_quantised_language_model_asks_for_what_it_needs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gill.backbones import language

    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"quantization='{kind}' needs bitsandbytes and accelerate: pip install"):
        language.load_language_model("x", "cpu", torch.float32, quantization=kind)
    asked: dict[str, object] = {}

    def from_pretrained(name: str, **settings: object) -> object:
        asked.update(settings)
        raise OSError("stop here")

    monkeypatch.setattr(language.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(language.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    with pytest.raises(ConfigError, match="stop here"):
        language.load_language_model("x", "cpu", torch.bfloat16, quantization=kind)
    settings = asked["quantization_config"].to_dict()  # type: ignore[attr-defined]
    assert (settings["load_in_8bit"], settings["load_in_4bit"]) == (kind == "8bit", kind == "4bit")
    assert asked["device_map"] == {"": "cpu"}
    with pytest.raises(ConfigError, match="unknown quantization"):
        language.load_language_model("x", "cpu", torch.bfloat16, quantization="2bit")


@pytest.mark.parametrize(("kind", "stored"), [("8bit", torch.int8), ("4bit", torch.uint8)])
def test_a_quantised_language_model_goes_on_as_the_whole_one(kind: str, stored: torch.dtype) -> None:
    pytest.importorskip("bitsandbytes", reason="quantization is an optional dependency")
    settings = {"device": "cpu", "dtype": torch.bfloat16, "load_ret_embs": False}
    whole, quantised = (gill.load_gill(quantization=name, **settings).generator for name in ("", kind))
    assert quantised.model.language.layers[0].fc1.weight.dtype == stored
    texts = ("a big red ball at the top", "this is the small", "Q: where is it?\nA: it is")
    prompts = [[Segment(text=text)] for text in texts]
    said, wanted = (generator.next_logits(prompts).float().softmax(-1) for generator in (quantised, whole))
    assert float((said - wanted).abs().sum(-1).max() / 2) < 0.1, "the share of words that would differ"


def test_search_scheduler_and_ranking_are_chosen_when_a_model_is_loaded(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="unknown scheduler 'heun'"):
        gill.load_gill(saved, device="cpu", scheduler="heun")
    write_index(saved / "index")
    with pytest.raises(ConfigError, match="unknown search backend 'annoy'"):
        gill.load_gill(saved, device="cpu", search="annoy")
    asked: list[object] = []
    monkeypatch.setattr("gill.models.gill.assembly.is_tiny", lambda name: False)
    monkeypatch.setattr("gill.models.gill.assembly.load_drawer", lambda *rest: asked.append(rest[-1]) or FakeDrawer())
    clip = str(FLATLAND / "clip")
    generator = gill.load_gill(saved, device="cpu", scheduler="ddim", ranking_clip=clip).generator
    (image,) = generator.generate([Segment(text="a red ball.")], replace(FORCED, num_candidates=4), 40)
    assert asked == ["ddim"]
    scores = Clip(clip).rank("a red ball.", [plain(seed) for seed in range(40, 44)])
    assert image.generated[0].source == f"seed {40 + scores.index(max(scores))}"
