"""Every preset at its real size, on the meta device: shapes and counts without the memory."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from gill.backbones import LanguageModel
from gill.errors import UnknownNameError
from gill.models import find_family, find_preset_family
from gill.models.gill import PRESETS, GillModel, GillTask, Vocabulary, find_preset
from gill.parameters import count_trainable, trainable_parameters
from gill.types import Batch


@dataclass(frozen=True)
class Sizes:
    """Published sizes of a preset's backbones."""

    width: int
    num_layers: int
    num_heads: int
    num_rows: int
    first_img_id: int
    feature_width: int
    conditioning: tuple[int, int] | None


OPT_VOCABULARY = (50272, 50266)
REAL_SIZES = {
    "gill-opt-6.7b": Sizes(4096, 32, 32, *OPT_VOCABULARY, 1024, (77, 768)),
    "gill-opt-13b": Sizes(5120, 40, 40, *OPT_VOCABULARY, 1024, (77, 768)),
    "gill-opt-30b": Sizes(7168, 48, 56, *OPT_VOCABULARY, 1024, (77, 768)),
    "gill-opt-125m-cpu": Sizes(768, 12, 12, *OPT_VOCABULARY, 768, (77, 768)),
    "fromage": Sizes(4096, 32, 32, *OPT_VOCABULARY, 1024, None),
    "fromage-vis4": Sizes(4096, 32, 32, *OPT_VOCABULARY, 1024, None),
    "flatland": Sizes(192, 4, 4, 512, 400, 192, (40, 192)),
    "fromage-flatland": Sizes(192, 4, 4, 512, 400, 192, None),
    "debug": Sizes(32, 2, 4, 268, 261, 24, (12, 16)),
}
RELEASED_COUNTS = {"gill-opt-6.7b": 50_096_385, "fromage": 5_513_729, "fromage-vis4": 18_108_929}


def meta_model(name: str) -> GillModel:
    """The preset's model without memory."""
    sizes, config = REAL_SIZES[name], find_preset(name).model
    opt = OPTConfig(
        vocab_size=sizes.num_rows,
        hidden_size=sizes.width,
        word_embed_proj_dim=sizes.width,
        ffn_dim=4 * sizes.width,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        max_position_embeddings=2048,
    )
    vocabulary = Vocabulary(sizes.first_img_id, config.num_img_tokens, config.num_visual_tokens)
    with torch.device("meta"):
        language = LanguageModel(OPTForCausalLM(opt))
        return GillModel(config, language, vocabulary, sizes.feature_width, sizes.conditioning)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_maps_between_the_widths_of_its_backbones(name: str) -> None:
    model, sizes = meta_model(name), REAL_SIZES[name]
    config = model.config
    ids = torch.tensor([[2, 5, 7], [2, 9, 0]])
    batch = Batch(ids, torch.tensor([3, 2]), torch.empty(2, sizes.feature_width))
    visual = model.visual_prefix(batch.images.to("meta"))
    assert visual.shape == (2, config.num_visual_tokens, sizes.width)
    rows = GillTask(model).text_rows(batch)
    hidden = model.hidden(rows, visual)
    img_hidden = hidden.live_at(rows.img_places(model.vocabulary))
    assert img_hidden.shape == (2, config.num_img_tokens, sizes.width)
    assert model.embed_text(img_hidden).shape == (2, config.retrieval_width)
    assert model.logits(img_hidden).shape[-1] == sizes.first_img_id + config.num_img_tokens
    if sizes.conditioning is not None:
        assert model.map_conditioning(img_hidden).shape == (2, *sizes.conditioning)


@pytest.mark.parametrize(("name", "billions"), {"gill-opt-6.7b": 6.7, "gill-opt-13b": 13, "gill-opt-30b": 30}.items())
def test_the_language_models_are_as_large_as_their_names(name: str, billions: float) -> None:
    language = meta_model(name).language
    assert sum(parameter.numel() for parameter in language.parameters()) == pytest.approx(billions * 1e9, rel=0.02)
    assert find_preset(name).model.language == f"facebook/{name.removeprefix('gill-')}"


@pytest.mark.parametrize("name", RELEASED_COUNTS)
def test_the_released_models_train_as_many_numbers_as_published(name: str) -> None:
    assert count_trainable(meta_model(name)) == RELEASED_COUNTS[name]


def test_the_recipes_are_the_originals() -> None:
    gill, fromage = find_preset("gill-opt-6.7b").recipe, find_preset("fromage").recipe
    assert (gill.learning_rate, gill.weight_decay, gill.warmup_steps, gill.decay_epochs) == (1e-3, 0.01, 2000, 5)
    assert (gill.betas, gill.grad_clip, gill.batch_size, gill.max_tokens) == ((0.9, 0.95), 1.0, 200, 32)
    assert (fromage.learning_rate, fromage.weight_decay, fromage.warmup_steps) == (3e-4, 0.0, 100)
    assert (fromage.decay_epochs, fromage.batch_size, fromage.max_tokens) == (10, 180, 24)


def test_public_parameter_names_do_not_drift() -> None:
    names = {name.split(".")[0] for name in trainable_parameters(meta_model("gill-opt-6.7b"))}
    assert names == {"img_tokens", "visual_prefix", "retrieval_heads", "logit_scale", "mapper"}
    assert set(trainable_parameters(meta_model("fromage"))) == {
        "logit_scale",
        "img_tokens.input_rows",
        "visual_prefix.linear.weight",
        "visual_prefix.linear.bias",
        "retrieval_heads.text.weight",
        "retrieval_heads.text.bias",
        "retrieval_heads.image.weight",
        "retrieval_heads.image.bias",
    }


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fromage-vis4'"):
        find_preset("fromage-vis5")
    with pytest.raises(UnknownNameError, match="did you mean 'flatland'"):
        find_preset_family("flatlnd")


def test_the_registry_finds_the_family() -> None:
    assert find_family("gill") is find_preset_family("fromage")
    with pytest.raises(UnknownNameError, match="unknown model family 'gil'; did you mean 'gill'"):
        find_family("gil")


def test_settings_that_cannot_work_are_refused() -> None:
    config = find_preset("debug").model
    wrong = {
        "num_img_tokens": (0, "num_img_tokens must be above 0"),
        "image_brackets": (("(",), "empty or two texts"),
        "img_token_name": ("[RET]", "names one token"),
        "mapper": ("lnear", "did you mean 'linear'"),
    }
    for change, (value, message) in wrong.items():
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(config, **{change: value})
