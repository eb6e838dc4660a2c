"""Scores on cases worked out by hand."""

import pytest
import torch

from gill.errors import ShapeError
from gill.metrics import (
    CalibrationBin,
    bleu_scores,
    bootstrap_interval,
    calibration_bins,
    expected_calibration_error,
    macro_scores,
    ranks_of_partners,
    retrieval_recalls,
)


def test_ranks_count_who_is_nearer() -> None:
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    # Text 0 finds its picture first; text 1 ties with picture 2; so does text 2, and picture 0 is farther.
    assert ranks_of_partners(text, image).tolist() == [0, 1, 1]
    scores = retrieval_recalls(text, image, ks=(1, 2))
    assert scores["t2i_r@1"] == pytest.approx(1 / 3) and scores["t2i_r@2"] == 1


def test_saying_the_same_of_everything_is_no_recall() -> None:
    same = torch.ones(100, 4)
    assert retrieval_recalls(same, same, ks=(1, 10)) == {f"{way}_r@{k}": 0.0 for k in (1, 10) for way in ("t2i", "i2t")}


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    text, image = torch.randn(50, 8, generator=generator), torch.randn(50, 8, generator=generator)
    whole = ranks_of_partners(text, image)
    monkeypatch.setattr("gill.metrics._ROWS_AT_ONCE", 7)
    assert torch.equal(ranks_of_partners(text, image), whole)


def test_bleu_of_known_sentences() -> None:
    assert bleu_scores(["the cat sat on the mat"], ["the cat sat on the mat"]) == pytest.approx(
        {f"bleu{order}": 1.0 for order in (1, 2, 3, 4)}
    )
    # 5 of 6 words, 3 of 5 pairs; no brevity penalty.
    scores = bleu_scores(["the cat sat on a mat"], ["the cat sat on the mat"])
    assert scores["bleu1"] == pytest.approx(5 / 6)
    assert scores["bleu2"] == pytest.approx((5 / 6 * 3 / 5) ** 0.5)


def test_sides_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ShapeError, match="pair up"):
        ranks_of_partners(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(ShapeError, match="one reference"):
        bleu_scores([], [])


def test_macro_scores_of_a_table_worked_by_hand() -> None:
    # Class 0: 3 of 4 found, 3 of 5 said are right. Class 1: 1 of 3 found, 1 of 2 said is right.
    true, predicted = torch.tensor([0, 0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 0, 0, 1])
    scores = macro_scores(predicted, true, 2)
    assert scores["accuracy"] == pytest.approx(4 / 7)
    assert scores["precision"] == pytest.approx((3 / 5 + 1 / 2) / 2)
    assert scores["recall"] == pytest.approx((3 / 4 + 1 / 3) / 2)
    assert scores["f1"] == pytest.approx((2 * 3 / 9 + 2 * 1 / 5) / 2)


def test_always_the_same_answer_scores_half_of_one_class() -> None:
    # PartiPrompts' validation rows, 201 to generate and 110 to retrieve: 2 x 201 / (201 + 311) / 2 = .393.
    true = torch.tensor([0] * 201 + [1] * 110)
    assert macro_scores(torch.zeros_like(true), true, 2)["f1"] == pytest.approx(201 / 512)
    assert macro_scores(torch.ones_like(true), true, 2)["f1"] == pytest.approx(110 / 421)
    assert macro_scores(torch.zeros_like(true), true, 2)["precision"] == pytest.approx(201 / 311 / 2)


def test_the_calibration_error_of_bins_worked_by_hand() -> None:
    confidence = torch.tensor(
        [0.55, 0.60, 0.95, 0.90, 1.0], dtype=torch.float64
    )  # .60 and .90 lie on borders: the bins below
    is_right = torch.tensor([True, False, True, True, False])
    bins = calibration_bins(confidence, is_right)
    wanted = [CalibrationBin(0.575, 0.5, 0.4), CalibrationBin(0.9, 1.0, 0.2), CalibrationBin(0.975, 0.5, 0.4)]
    for found, each in zip(bins, wanted, strict=True):
        assert vars(found) == pytest.approx(vars(each), abs=1e-6)
    assert expected_calibration_error(bins) == pytest.approx(0.4 * 0.075 + 0.2 * 0.1 + 0.4 * 0.475, abs=1e-6)


def test_a_bootstrap_interval_is_that_of_the_mean() -> None:
    values = torch.tensor([0.0] * 60 + [1.0] * 40)
    low, high = bootstrap_interval(lambda places: float(values[places].mean()), 100, num_resamples=2000)
    # The mean is .4 and its standard error sqrt(.4 x .6 / 100) = .049, so 95 % lie within .304 and .496.
    assert low == pytest.approx(0.304, abs=0.015) and high == pytest.approx(0.496, abs=0.015)
    assert bootstrap_interval(lambda places: 0.7, 5, num_resamples=10) == pytest.approx((0.7, 0.7))


def test_scores_of_nothing_are_refused() -> None:
    nothing = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ShapeError, match="one prediction"):
        macro_scores(nothing, nothing, 2)
    with pytest.raises(ShapeError, match="one confidence"):
        calibration_bins(torch.ones(2), torch.ones(3, dtype=torch.bool))
