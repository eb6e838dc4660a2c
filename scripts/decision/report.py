"""What a decision head scores on prompts it was not trained on, beside constant choices and published numbers.

Shape legend: N = test prompts; column 0 of the probabilities is to generate, column 1 to retrieve.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gill.metrics import bootstrap_interval, calibration_bins, expected_calibration_error, macro_scores

NUM_CLASSES = 2
SCORES = ("f1", "precision", "recall", "accuracy")
# Macro-F1 on PartiPrompts, 201 prompts to generate and 110 to retrieve: other prompts than Flatland's, so no bars here.
PUBLISHED = {
    "always retrieve (arXiv:2305.17216, ablation of the decision)": 0.267,
    "always generate (same)": 0.389,
    "random (same)": 0.451,
    "linear classifier (same)": 0.547,
    "released notebook, best step on its validation rows": 0.5436,
    "released notebook, last step": 0.5325,
    "released notebook, people": 0.851,
}


def measure(probability_N2: Tensor, true_N: Tensor) -> dict[str, Any]:
    """Scores with 95 % bootstrap intervals, and how much better F1 is than always choosing the same.

    Args:
        probability_N2: float[N, 2]. true_N: int64[N].
    """
    predicted = probability_N2.argmax(1)
    found = {name: _with_interval(predicted, true_N, name) for name in SCORES}
    found["calibration_error"] = _calibration(probability_N2, true_N)
    constants = {name: torch.full_like(true_N, column) for column, name in enumerate(("generate", "retrieve"))}
    scores = {name: macro_scores(choice, true_N, NUM_CLASSES)["f1"] for name, choice in constants.items()}
    best = max(scores, key=scores.__getitem__)

    def gain(places: Tensor) -> float:
        return _score(predicted, true_N, "f1", places) - _score(constants[best], true_N, "f1", places)

    low, high = bootstrap_interval(gain, len(true_N))
    return {
        **found,
        "constant_f1": scores,
        "best_constant": best,
        "coin_f1": coin_f1(true_N),
        "gain_over_constant": {"value": found["f1"]["value"] - scores[best], "low": low, "high": high},
        "num_generate": int((true_N == 0).sum()),
        "num_retrieve": int((true_N == 1).sum()),
    }


def coin_f1(true_N: Tensor) -> float:
    """Macro-F1 of a fair coin on many such prompts: each class with its share as precision, and recall one half."""
    shares = torch.bincount(true_N, minlength=NUM_CLASSES).double() / len(true_N)
    return float((shares / (shares + 0.5)).mean())


def _with_interval(predicted_N: Tensor, true_N: Tensor, name: str) -> dict[str, float]:
    low, high = bootstrap_interval(lambda places: _score(predicted_N, true_N, name, places), len(true_N))
    return {"value": macro_scores(predicted_N, true_N, NUM_CLASSES)[name], "low": low, "high": high}


def _score(predicted_N: Tensor, true_N: Tensor, name: str, places: Tensor) -> float:
    return macro_scores(predicted_N[places], true_N[places], NUM_CLASSES)[name]


def _calibration(probability_N2: Tensor, true_N: Tensor) -> dict[str, float]:
    confidence, chosen = probability_N2.max(1)
    is_right = chosen == true_N

    def error(places: Tensor) -> float:
        return expected_calibration_error(calibration_bins(confidence[places], is_right[places]))

    low, high = bootstrap_interval(error, len(true_N))
    return {"value": error(torch.arange(len(true_N))), "low": low, "high": high}


def in_words(scores: dict[str, Any]) -> str:
    """The scores as a table, published ones last."""
    names = {"f1": "macro F1", "precision": "macro precision", "recall": "macro recall", "accuracy": "accuracy"}
    names |= {"calibration_error": "expected calibration error", "gain_over_constant": "gain over it"}
    constant = f"best constant choice: always {scores['best_constant']}"
    lines = [f"  {names[name]:<32} {_interval(scores[name])}" for name in (*SCORES, "calibration_error")]
    lines.append(f"  {constant:<32} {scores['constant_f1'][scores['best_constant']]:.3f}")
    lines.append(f"  {names['gain_over_constant']:<32} {_interval(scores['gain_over_constant'])}")
    lines.append(f"  {'a fair coin':<32} {scores['coin_f1']:.3f}")
    published = [f"  {name:<62} {value:.3f}" for name, value in PUBLISHED.items()]
    count = f"{scores['num_generate']} prompts to generate and {scores['num_retrieve']} to retrieve"
    return "\n".join([f"on {count}, with 95 % intervals:", *lines, "published macro F1 on PartiPrompts:", *published])


def _interval(score: dict[str, float]) -> str:
    return f"{score['value']:.3f}  [{score['low']:.3f}, {score['high']:.3f}]"


def draw_reliability(path: Path, probability_N2: Tensor, true_N: Tensor) -> None:
    """Confidence against accuracy as a picture; a calibrated head lies on the diagonal."""
    from matplotlib.figure import Figure  # slow to import

    confidence, chosen = probability_N2.max(1)
    bins = calibration_bins(confidence, chosen == true_N)
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0.5, 1], [0.5, 1], color="grey", linestyle="dashed", label="calibrated")
    axes.plot([each.confidence for each in bins], [each.accuracy for each in bins], color="tab:blue")
    sizes = [20 + 400 * each.share for each in bins]
    axes.scatter([each.confidence for each in bins], [each.accuracy for each in bins], sizes, label="decision head")
    axes.set(xlabel="probability of the choice", ylabel="share of right choices", xlim=(0.45, 1.05), ylim=(-0.05, 1.05))
    axes.set_title(f"{len(true_N)} test prompts; area: share of them")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
