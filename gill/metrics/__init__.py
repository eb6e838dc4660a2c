"""Pure scores: numbers from numbers. What a network sees in pictures is computed elsewhere and given to them."""

from gill.metrics.answers import normalise_answer, vqa_accuracy
from gill.metrics.classification import CalibrationBin, calibration_bins, expected_calibration_error, macro_scores
from gill.metrics.distributions import (
    Gaussian,
    KernelDistance,
    frechet_distance,
    frechet_inception_distance,
    kernel_inception_distance,
    squared_mmd,
)
from gill.metrics.intervals import (
    Estimate,
    bootstrap_interval,
    estimate_mean,
    estimate_score,
    paired_difference,
    share_half_width,
    share_interval,
)
from gill.metrics.pictures import cosine_similarities, lpips_distances
from gill.metrics.retrieval import (
    RECALL_AT,
    mean_reciprocal_rank,
    ndcg,
    ranks_of_hits,
    ranks_of_owners,
    ranks_of_partners,
    recall_at,
    retrieval_recalls,
)
from gill.metrics.text import (
    bleu_counts,
    bleu_of_counts,
    bleu_scores,
    caption_words,
    cider,
    longest_common_subsequence,
    rouge_l,
)

__all__ = [
    "RECALL_AT",
    "CalibrationBin",
    "Estimate",
    "Gaussian",
    "KernelDistance",
    "bleu_counts",
    "bleu_of_counts",
    "bleu_scores",
    "bootstrap_interval",
    "calibration_bins",
    "caption_words",
    "cider",
    "cosine_similarities",
    "estimate_mean",
    "estimate_score",
    "expected_calibration_error",
    "frechet_distance",
    "frechet_inception_distance",
    "kernel_inception_distance",
    "longest_common_subsequence",
    "lpips_distances",
    "macro_scores",
    "mean_reciprocal_rank",
    "ndcg",
    "normalise_answer",
    "paired_difference",
    "ranks_of_hits",
    "ranks_of_owners",
    "ranks_of_partners",
    "recall_at",
    "retrieval_recalls",
    "rouge_l",
    "share_half_width",
    "share_interval",
    "squared_mmd",
    "vqa_accuracy",
]
