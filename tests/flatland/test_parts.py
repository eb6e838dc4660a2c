"""The shipped frozen parts: they load with the libraries alone, and do what their cards say (on few items, loosely)."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import AutoTokenizer, CLIPModel, CLIPProcessor

from gill.flatland.captions import caption
from gill.flatland.world import scenes
from scripts.flatland import evaluation, language_evaluation
from scripts.flatland.common import mean_marks
from scripts.flatland.diffusion import draw_from_captions
from scripts.flatland.language import copied_colours

PARTS = Path(__file__).resolve().parents[2] / "checkpoints" / "flatland"
MAX_BYTES = 32_000_000


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(PARTS / "diffusion", dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_all_parts_fit_in_32_megabytes():
    assert sum(path.stat().st_size for path in PARTS.rglob("*") if path.is_file()) <= MAX_BYTES


def test_every_weight_is_safetensors_and_every_part_has_a_card():
    assert not [path for path in PARTS.rglob("*") if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".npy"}]
    for part in ("language", "clip", "diffusion"):
        card = (PARTS / part / "README.md").read_text()
        assert "scripts/build_flatland.py" in card
        assert "| measure | value | n |" in card


def test_the_parts_load_without_this_project(tmp_path):
    program = (
        "import runpy, sys; runpy.run_path(sys.argv[1])['define_missing_torchvision_ops']();"
        "from transformers import AutoModelForCausalLM as L, AutoTokenizer as T, CLIPModel as C, CLIPProcessor as P;"
        "from diffusers import DiffusionPipeline as D; f = sys.argv[2];"
        "L.from_pretrained(f + '/language'); T.from_pretrained(f + '/language'); C.from_pretrained(f + '/clip');"
        "P.from_pretrained(f + '/clip'); print(type(D.from_pretrained(f + '/diffusion')).__name__)"
    )
    shim = PARTS.parents[1] / "gill" / "_torchvision.py"
    command = [sys.executable, "-c", program, str(shim), str(PARTS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "StableDiffusionPipeline"


def test_the_language_model_copies_from_its_context():
    model, tokenizer = evaluation.load_language(PARTS, torch.device("cpu"))
    assert copied_colours(model, tokenizer, 40) >= 0.8
    told = [language_evaluation.story("test", index) for index in range(40)]
    plain = language_evaluation.copied(language_evaluation.Reader(model, tokenizer), told, illustrated=False)
    assert mean(plain["colour"]) < 0.35


def test_the_language_model_knows_the_grammar():
    reader = language_evaluation.Reader(*evaluation.load_language(PARTS, torch.device("cpu")))
    assert abs(mean(language_evaluation.caption_excess(reader, 60, 0))) < 0.15


def test_clip_finds_the_picture_of_a_caption():
    clip = CLIPModel.from_pretrained(PARTS / "clip", dtype=torch.float32).eval()
    processor = CLIPProcessor.from_pretrained(PARTS / "clip")
    shown = list(scenes("test", 100))
    inputs = processor(
        text=[caption(scene) for scene in shown],
        images=[evaluation.draw_batch([scene])[0] for scene in shown],
        return_tensors="pt",
        padding=True,
    )
    with torch.no_grad():
        logits = clip(**inputs).logits_per_text
    assert (logits.argmax(1) == torch.arange(100)).float().mean() >= 0.9


def test_a_round_trip_through_the_latents_changes_nothing_that_counts(pipeline):
    assert mean(evaluation.vae_measures(pipeline, 100, 0)["vae_all"]) >= 0.97


def test_captions_are_drawn(pipeline):
    shown = list(scenes("test", 32))
    marks = mean_marks(draw_from_captions(pipeline, [caption(scene) for scene in shown], range(32)), shown)
    assert marks["place"] >= 0.95
    assert marks["cells"] >= 0.85
    assert marks["shape_colour_cell"] >= 0.7


def test_one_seed_gives_one_picture_at_any_batch_size(pipeline):
    texts = [caption(scene) for scene in scenes("test", 3)]
    together = draw_from_captions(pipeline, texts, [5, 6, 7], steps=2)
    alone = draw_from_captions(pipeline, texts[1:2], [6], steps=2)
    assert abs(together[1].astype(int) - alone[0].astype(int)).max() <= 1


def test_the_tokenizer_splits_apart_as_it_splits_together():
    tokenizer = AutoTokenizer.from_pretrained(PARTS / "language")

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    assert ids("a red ball.") + ids("( a blue box )") == ids("a red ball. ( a blue box )")
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 2
