"""Scores of classifiers: accuracy, macro-averaged F1, and whether confidence means anything.

Shape legend: N = answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gill.errors import ShapeError


def macro_scores(predicted_N: Tensor, true_N: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 averaged over the classes, each class counting the same.

    What has no denominator is 0: the precision of a class that is never predicted, the recall of one that never occurs.

    Args:
        predicted_N, true_N: int64[N], classes from 0.

    Raises:
        ShapeError: not as many predictions as classes, or none.
    """
    if predicted_N.shape != true_N.shape or not len(true_N):
        raise ShapeError(f"one prediction an answer: got {tuple(predicted_N.shape)} and {tuple(true_N.shape)}")
    counts = torch.bincount(true_N * num_classes + predicted_N, minlength=num_classes**2).view(num_classes, -1).double()
    right, said, real = counts.diagonal(), counts.sum(0), counts.sum(1)
    return {
        "accuracy": float(right.sum() / counts.sum()),
        "precision": float((right / said.clamp(min=1)).mean()),
        "recall": float((right / real.clamp(min=1)).mean()),
        "f1": float((2 * right / (said + real).clamp(min=1)).mean()),
    }


@dataclass(frozen=True)
class CalibrationBin:
    """Answers given with a like confidence: its mean, how many of them were right, and their share of all answers."""

    confidence: float
    accuracy: float
    share: float


def calibration_bins(confidence_N: Tensor, is_right_N: Tensor, num_bins: int = 10) -> list[CalibrationBin]:
    """Answers in `num_bins` equal bins of confidence over [0, 1], a border belonging to the bin below; none is empty.

    Args:
        confidence_N: float[N], probability of the answer that was given. is_right_N: bool[N].

    Raises:
        ShapeError: not as many confidences as answers, or none.
    """
    if confidence_N.shape != is_right_N.shape or not len(is_right_N):
        raise ShapeError(f"one confidence an answer: got {tuple(confidence_N.shape)} and {tuple(is_right_N.shape)}")
    confidence, is_right = confidence_N.double(), is_right_N.double()
    number = ((confidence * num_bins).ceil().long() - 1).clamp(min=0)
    inside = [number == bin_number for bin_number in range(num_bins)]
    return [
        CalibrationBin(float(confidence[each].mean()), float(is_right[each].mean()), float(each.double().mean()))
        for each in inside
        if each.any()
    ]


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Mean gap between confidence and accuracy, bins weighted by their share (Guo et al., arXiv:1706.04599)."""
    return sum(each.share * abs(each.confidence - each.accuracy) for each in bins)
