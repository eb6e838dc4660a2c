"""Train a decision head on stored hidden states.

Features are standardised while training and probabilities are sharpened or softened by one temperature afterwards;
both are linear, so both are folded into the head's weights and the saved head is a plain linear classifier.

Shape legend: N = prompts, D = hidden width.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F

from gill.errors import DataError
from gill.mappers import DecisionHead

NUM_CLASSES = 2
MIN_OF_A_CLASS = 2
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.25
_TEMPERATURES = torch.logspace(-1.5, 1.5, 121)


@dataclass(frozen=True)
class Split:
    """Places of the prompts that are learned from, that say when to stop, and that are reported: int64 each."""

    train: Tensor
    validation: Tensor
    test: Tensor


@dataclass(frozen=True)
class HeadRecipe:
    """How a head is trained.

    Attributes:
        learning_rate, num_steps: of AdamW on all training rows at once, as the original's (1e-3, 2000).
        patience: steps without a better validation loss before it stops; the best head is kept.
        balances_classes: both classes weigh the same in the loss, however many rows each has.
    """

    learning_rate: float = 1e-3
    num_steps: int = 2000
    patience: int = 200
    balances_classes: bool = True
    seed: int = 1337


def split_prompts(prompts: Sequence[str], seed: int, num_first: int | None = None) -> Split:
    """Train, validation and test; equal prompts stay together, so no test prompt was trained on.

    Args:
        num_first: the first so many rows are for training and validation, the rest is the test, as in the original's
            notebook; None takes a random quarter as the test.
    """
    groups = sorted(set(prompts))
    Random(seed).shuffle(groups)
    rank = {prompt: place / len(groups) for place, prompt in enumerate(groups)}
    ranks = torch.tensor([rank[prompt] for prompt in prompts])
    if num_first is None:
        is_test = ranks >= 1 - TEST_SHARE
    else:
        early = set(prompts[:num_first])
        is_test = torch.tensor([place >= num_first and prompt not in early for place, prompt in enumerate(prompts)])
    is_validation = ~is_test & (ranks < VALIDATION_SHARE)
    return Split(*(is_in.nonzero()[:, 0] for is_in in (~is_test & ~is_validation, is_validation, is_test)))


def check_split(split: Split, label_N: Tensor) -> None:
    """Refuse a split in which some class is missing.

    Raises:
        DataError: fewer than two of a class somewhere.
    """
    for name, places in vars(split).items():
        counts = torch.bincount(label_N[places], minlength=NUM_CLASSES).tolist()
        if min(counts) < MIN_OF_A_CLASS:
            raise DataError(
                f"the {name} rows hold {counts[0]} prompts to generate and {counts[1]} to retrieve, wanted at least "
                f"{MIN_OF_A_CLASS} of each; give more decisions or another --seed"
            )


def train_head(state_ND: Tensor, label_N: Tensor, split: Split, recipe: HeadRecipe) -> tuple[DecisionHead, list[float]]:
    """The head with the best validation loss, in eval mode, and the validation losses step by step.

    Args:
        state_ND: float[N, D] hidden states at [IMG0]. label_N: int64[N], columns of the head's logits.
    """
    mean, spread = state_ND[split.train].mean(0), state_ND[split.train].std(0).clamp(min=1e-6)
    scaled_ND = (state_ND - mean) / spread
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        head, losses = _fit(scaled_ND, label_N, split, recipe)
    temperature = best_temperature(_logits(head, scaled_ND[split.validation]), label_N[split.validation])
    with torch.no_grad():
        head.linear.weight.div_(spread * temperature)
        head.linear.bias.div_(temperature).sub_(head.linear.weight @ mean)
    return head, losses


def _fit(scaled_ND: Tensor, label_N: Tensor, split: Split, recipe: HeadRecipe) -> tuple[DecisionHead, list[float]]:
    head = DecisionHead(scaled_ND.shape[1])
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    counts = torch.bincount(label_N[split.train], minlength=NUM_CLASSES)
    weights = counts.sum() / (NUM_CLASSES * counts) if recipe.balances_classes else torch.ones(NUM_CLASSES)
    best, losses = copy.deepcopy(head), [float("inf")]
    for _ in range(recipe.num_steps):
        optimizer.zero_grad()
        F.cross_entropy(head.train()(scaled_ND[split.train]), label_N[split.train], weights).backward()
        optimizer.step()
        logits = _logits(head, scaled_ND[split.validation])
        losses.append(float(F.cross_entropy(logits, label_N[split.validation], weights)))
        if losses[-1] == min(losses):
            best = copy.deepcopy(head)
        elif len(losses) - losses.index(min(losses)) > recipe.patience:
            break
    return best.eval(), losses[1:]


@torch.no_grad()
def _logits(head: DecisionHead, scaled_ND: Tensor) -> Tensor:
    return head.eval()(scaled_ND)


def best_temperature(logits_N2: Tensor, label_N: Tensor) -> float:
    """The one that makes the logits' probabilities likeliest (Guo et al., arXiv:1706.04599); it changes no choice."""
    losses = [F.cross_entropy(logits_N2 / temperature, label_N) for temperature in _TEMPERATURES]
    return float(_TEMPERATURES[torch.stack(losses).argmin()])
