"""Records to ids and pixels."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gill.errors import ConfigError, DataError
from gill.models.gill import GillEncoder, GillTokenizer, build, find_preset, load_encoder
from gill.types import IMAGE_SLOT, CaptionRecord, Segment

NUM_ROWS = 268
PICTURE = Image.new("L", (50, 20))


@pytest.fixture(scope="module")
def encoder() -> GillEncoder:
    """The debug preset's."""
    return load_encoder(find_preset("debug").model, NUM_ROWS, max_tokens=24)


def record(caption: str, *context: Segment) -> CaptionRecord:
    """A record with a place."""
    return CaptionRecord(caption, Path("p.png"), context, "train.tsv", 7)


def test_img_tokens_follow_the_class_token(encoder: GillEncoder) -> None:
    tokenizer: GillTokenizer = encoder.tokenizer
    assert tokenizer.num_words == 261  # 260 bytes and specials, then the class token
    assert tokenizer.words("[IMG0][IMG3]") == [261, 264]
    assert tokenizer.vocabulary.size == 265


def test_a_text_opens_with_the_beginning_of_sequence_and_is_cut_to_fit(encoder: GillEncoder) -> None:
    ids, num_cut = encoder.text_ids(record("ab"))
    assert ids.tolist() == [2, *encoder.tokenizer.words("ab")]
    assert num_cut == 0
    ids, num_cut = encoder.text_ids(record("x" * 99))
    assert len(ids) == 24 - 4 and num_cut == 99 - (len(ids) - 1)


def test_a_sample_holds_pixels_and_conditioning_ids(encoder: GillEncoder) -> None:
    sample = encoder.encode(record("a cat"), PICTURE)
    assert sample.image.shape == (3, 32, 32)
    assert sample.conditioning_ids is not None
    assert sample.conditioning_ids.shape == (12,)
    stored = encoder.encode(record("a cat"), torch.ones(5), conditioning_target=torch.ones(2, 3))
    assert torch.equal(stored.image, torch.ones(5))
    assert stored.conditioning_ids is None


def test_a_context_is_read_instead_of_the_caption(encoder: GillEncoder) -> None:
    context = (Segment(text="ab"), Segment(image_path=Path("c.png")), Segment(text="d"))
    sample = encoder.encode(record("caption", *context), PICTURE, [PICTURE])
    words = encoder.tokenizer.words
    assert sample.text_ids.tolist() == [2, *words("ab"), IMAGE_SLOT, *words("d")]
    assert len(sample.context_images) == 1


@pytest.mark.parametrize(
    ("caption", "message"), [("  ", "the caption is empty"), ("a [IMG0]", r"contains an \[IMG\] token's name")]
)
def test_bad_texts_are_named_with_file_and_line(encoder: GillEncoder, caption: str, message: str) -> None:
    with pytest.raises(DataError, match=f"train.tsv:7: .*{message}"):
        encoder.encode(record(caption), PICTURE)


def test_contexts_that_do_not_fit_are_refused(encoder: GillEncoder) -> None:
    with pytest.raises(DataError, match=r"30 tokens, 19 fit; raise max_tokens"):
        encoder.encode(record("x", Segment(text="y" * 30)), PICTURE)
    with pytest.raises(DataError, match="does not fit its 0 pictures"):
        encoder.encode(record("x", Segment(image=PICTURE)), PICTURE)


def test_an_encoder_can_be_sent_to_a_worker(encoder: GillEncoder) -> None:
    again = pickle.loads(pickle.dumps(encoder))
    assert torch.equal(again.encode(record("a"), PICTURE).image, encoder.encode(record("a"), PICTURE).image)


def test_settings_that_do_not_fit_the_tokenizer_are_refused() -> None:
    config = find_preset("debug").model
    with pytest.raises(ConfigError, match="do not belong together"):
        load_encoder(config, 100, max_tokens=24)
    with pytest.raises(ConfigError, match="leaves no room for text"):
        load_encoder(config, NUM_ROWS, max_tokens=5)


def test_texts_that_the_language_model_cannot_read_are_refused_before_training() -> None:
    config = replace(find_preset("debug").model, image_brackets=("(", ")"), num_visual_tokens=6)
    limit = build(config)[0].model.language.max_positions
    assert limit is not None
    more = 6 + 2 - 4  # a picture in brackets stands where the 4 [IMG] tokens of the text pass do not
    build(config, max_tokens=limit - more)
    with pytest.raises(ConfigError, match=f"reads {limit} tokens.* has {limit + 1}; --max-len {limit - more} fits"):
        build(config, max_tokens=limit - more + 1)


def test_the_debug_preset_builds_without_files() -> None:
    preset = find_preset("debug")
    task, encoder = build(preset.model, max_tokens=preset.recipe.max_tokens)
    assert encoder.tokenizer.vocabulary == task.model.vocabulary
