"""The frozen parts: what is read from them, folders there and back, refusals."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BloomConfig, BloomForCausalLM, CLIPConfig, CLIPModel

from gill.backbones import (
    LANGUAGE_FAMILIES,
    LanguageModel,
    load_conditioning_encoder,
    load_image_transform,
    load_language_model,
    load_vision_tower,
    open_clip_tower,
    reading_cache,
    tiny_conditioning_encoder,
    tiny_image_transform,
    tiny_language_model,
    tiny_vision_tower,
)
from gill.errors import ConfigError, ShapeError, UnknownNameError

PARITY = Path(__file__).resolve().parents[1] / "parity" / "gill"


@pytest.mark.parametrize("family", LANGUAGE_FAMILIES)
def test_last_states_are_the_heads_input(family: str) -> None:
    language = tiny_language_model(family)
    ids = torch.tensor([[2, 7, 9, 11]])
    mask = torch.zeros(1, 1, 4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), torch.finfo(torch.float32).min)
    states = language.hidden_states(language.embed(ids), torch.arange(4)[None], mask)
    torch.testing.assert_close(language.head(states), language.model(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    assert states.shape[-1] == language.hidden_width
    assert language.table.shape[1] == language.width


@pytest.mark.parametrize("family", LANGUAGE_FAMILIES)
def test_kept_keys_and_values_change_nothing(family: str) -> None:
    language = tiny_language_model(family)
    embeddings, positions = torch.randn(1, 5, language.width), torch.arange(5)[None]
    mask = torch.zeros(1, 1, 5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), torch.finfo(torch.float32).min)
    whole = language.hidden_states(embeddings, positions, mask)
    cache = reading_cache()
    first = language.hidden_states(embeddings[:, :3], positions[:, :3], mask[..., :3, :3], cache)
    second = language.hidden_states(embeddings[:, 3:], positions[:, 3:], mask[..., 3:, :], cache)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-4, atol=1e-5)


def test_ties_are_seen() -> None:
    ties = {family: tiny_language_model(family).is_tied for family in ("opt", "gpt2", "qwen2", "llama", "gpt-neox")}
    assert ties == {"opt": True, "gpt2": True, "qwen2": True, "llama": False, "gpt-neox": False}


def test_tiny_models_depend_on_the_seed_alone() -> None:
    torch.manual_seed(9)
    first = tiny_language_model(seed=4).table
    torch.manual_seed(10)
    assert torch.equal(tiny_language_model(seed=4).table, first)
    assert not torch.equal(tiny_language_model(seed=5).table, first)
    with pytest.raises(UnknownNameError, match="did you mean 'gpt2'"):
        tiny_language_model("gpt")


def test_a_folder_is_loaded_in_the_dtype_asked_for() -> None:
    language = load_language_model(str(PARITY / "facebook/opt-tiny"), "cpu", torch.bfloat16)
    assert language.table.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in language.parameters())
    tower = load_vision_tower(str(PARITY / "openai/clip-tiny"), "cpu", torch.float32)
    assert (tower.feature_width, tower.image_size) == (40, 32)
    pixels = load_image_transform(str(PARITY / "openai/clip-tiny"))(Image.new("P", (90, 41)))
    assert tower(pixels[None]).shape == (1, 40)


def test_a_whole_clip_serves_as_a_tower(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=sizes, vision_config={**sizes, "image_size": 16, "patch_size": 8}, projection_dim=4)
    whole = CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 16, 16)
    wanted = whole.vision_model(pixel_values=pixels).pooler_output
    torch.testing.assert_close(load_vision_tower(str(tmp_path), "cpu", torch.float32)(pixels), wanted)


def test_a_tower_pools_what_transformers_pools_and_asks_its_last_layer_for_no_patch() -> None:
    tower = tiny_vision_tower(dtype=torch.float64)
    pixels = torch.randn(3, 3, tower.image_size, tower.image_size, dtype=torch.float64)
    wanted = tower.tower(pixels).pooler_output
    seen: list[torch.Size] = []
    for layer in tower.tower.encoder.layers:
        layer.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[:2]))
    torch.testing.assert_close(tower(pixels), wanted, rtol=1e-12, atol=1e-12)
    num_tokens = (tower.image_size // tower.tower.config.patch_size) ** 2 + 1
    assert seen == [(3, num_tokens)] * (len(tower.tower.encoder.layers) - 1) + [(3, 1)]


@pytest.mark.parametrize("name", ["openai/clip-tiny", "tiny"])
def test_pictures_prepared_together_are_those_prepared_alone(name: str) -> None:
    transform = tiny_image_transform() if name == "tiny" else load_image_transform(str(PARITY / name))
    pictures = [Image.effect_noise(size, 60) for size in ((90, 41), (40, 40), (33, 120))]
    pictures.append(Image.new("RGBA", (64, 50), (200, 30, 90, 128)))
    assert torch.equal(transform.batch(pictures), torch.stack([transform(picture) for picture in pictures]))


def test_the_text_encoder_of_a_pipeline_folder_is_found(tmp_path: Path) -> None:
    tiny = tiny_conditioning_encoder()
    tiny.encoder.save_pretrained(tmp_path / "text_encoder")
    loaded = load_conditioning_encoder(str(tmp_path), "cpu", torch.float32)
    ids = torch.randint(4, 200, (2, 12))
    torch.testing.assert_close(loaded(ids), tiny(ids))
    assert (loaded.length, loaded.width) == (12, 16)


def test_an_open_clip_tower_gives_the_class_token_before_projection() -> None:
    open_clip = pytest.importorskip("open_clip")
    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text).eval()
    pixels = torch.randn(2, 3, 32, 32)
    projection = model.visual.proj.detach().clone()
    wanted = model.visual(pixels).detach()
    tower = open_clip_tower(model)
    assert tower.feature_width == 64
    torch.testing.assert_close(tower(pixels) @ projection, wanted)


def test_families_that_cannot_be_driven_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not take position_ids; use a family such as OPT"):
        LanguageModel(BloomForCausalLM(BloomConfig(vocab_size=20, hidden_size=8, n_layer=1, n_head=2)))


def test_names_that_lead_nowhere_say_what_to_give(tmp_path: Path) -> None:
    for load in (load_language_model, load_vision_tower, load_conditioning_encoder):
        with pytest.raises(ConfigError, match="give a"):
            load(str(tmp_path / "nowhere"), "cpu", torch.float32)


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ShapeError, match="reads 3 x 32 x 32 pixels"):
        tiny_vision_tower()(torch.zeros(1, 3, 16, 16))
