"""Scores of classifiers on tables worked out by hand."""

import pytest
import torch

from gill.errors import ShapeError
from gill.metrics import CalibrationBin, calibration_bins, expected_calibration_error, macro_scores


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


def test_scores_of_nothing_are_refused() -> None:
    nothing = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ShapeError, match="one prediction"):
        macro_scores(nothing, nothing, 2)
    with pytest.raises(ShapeError, match="one confidence"):
        calibration_bins(torch.ones(2), torch.ones(3, dtype=torch.bool))
