"""Batches and the errors for what does not pair up."""

import pytest
import torch

from gill.errors import ShapeError
from gill.types import IMAGE_SLOT, Batch, Sample, Segment


def sample(*ids: int, **parts: object) -> Sample:
    """A sample with a feature of width 3."""
    return Sample(torch.tensor(ids), torch.ones(3), **parts)


def test_samples_are_padded_on_the_right() -> None:
    batch = Batch.from_samples([sample(2, 5), sample(2, 6, 7)])
    assert batch.text_ids.tolist() == [[2, 5, 0], [2, 6, 7]]
    assert batch.text_lengths.tolist() == [2, 3]
    assert (len(batch), batch.has_pixels) == (2, False)


def test_pictures_in_texts_are_numbered_in_reading_order() -> None:
    first, second = torch.zeros(3), torch.ones(3)
    batch = Batch.from_samples([sample(2, 4), sample(2, IMAGE_SLOT, IMAGE_SLOT, context_images=(first, second))])
    assert torch.equal(batch.context_images, torch.stack([first, second]))


def test_moving_keeps_the_texts_on_the_host_and_casts_floats_only() -> None:
    batch = Batch.from_samples([sample(2, 5, conditioning_ids=torch.tensor([1]))]).to("meta", torch.bfloat16)
    assert (batch.text_ids.device.type, batch.images.device.type) == ("cpu", "meta")
    assert (batch.images.dtype, batch.conditioning_ids.dtype) == (torch.bfloat16, torch.long)


@pytest.mark.parametrize(
    ("samples", "is_paired", "message"),
    [
        ([], False, "at least one sample"),
        ([sample(2)], True, "even batch"),
        ([sample(2, IMAGE_SLOT)], False, "1 places for pictures, context_images holds 0"),
        ([sample(2), sample(2, conditioning_target=torch.ones(1, 1))], False, "for all or for none"),
        ([sample(2), Sample(torch.tensor([2]), torch.ones(4))], False, "differs in shape"),
    ],
)
def test_what_does_not_pair_up_is_refused(samples: list[Sample], is_paired: bool, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Batch.from_samples(samples, is_paired)


def test_a_segment_is_one_thing() -> None:
    assert Segment(text="").is_text
    with pytest.raises(ShapeError, match="one text or one picture; got 0"):
        Segment()
