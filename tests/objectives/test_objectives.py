"""Scores worked by hand, and gradients against autograd over full logits."""

import math

import pytest
import torch
import torch.nn.functional as F

from gill.errors import ShapeError
from gill.objectives import (
    conditioning_distance,
    contrastive_loss,
    label_ranks,
    shared_gradient,
    token_cross_entropy,
)


def head(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """States that require gradient, frozen rows, bias, trainable rows."""
    source = torch.Generator().manual_seed(0)
    states, frozen, bias, rows = (
        torch.randn(*shape, generator=source, dtype=torch.float64).to(dtype) for shape in ((5, 6), (9, 6), (9,), (2, 6))
    )
    return states.requires_grad_(), frozen, bias, rows.requires_grad_()


@pytest.mark.parametrize("has_bias", [False, True])
def test_cross_entropy_and_its_gradients_equal_full_logits(has_bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gill.objectives.captioning._LOGITS_AT_ONCE", 20)  # two states a chunk
    states, frozen, bias, rows = head()
    labels = torch.tensor([0, 8, 9, 10, 3])
    ours = token_cross_entropy(states, labels, frozen, bias if has_bias else None, rows)
    ours.square().sum().backward()
    found = states.grad.clone(), rows.grad.clone()
    states.grad = rows.grad = None
    full_bias = torch.cat([bias, torch.zeros(2)]) if has_bias else None
    wanted = F.cross_entropy(F.linear(states, torch.cat([frozen, rows]), full_bias), labels, reduction="none")
    wanted.square().sum().backward()
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0], states.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], rows.grad, rtol=1e-12, atol=1e-12)


def test_frozen_states_give_gradient_to_the_rows_only() -> None:
    states, frozen, _, rows = head()
    token_cross_entropy(states.detach(), torch.zeros(5, dtype=torch.long), frozen, None, rows).sum().backward()
    assert states.grad is None
    assert rows.grad.norm() > 0


def test_no_labels_give_no_losses() -> None:
    states, frozen, _, rows = head()
    none = token_cross_entropy(states[:0], torch.zeros(0, dtype=torch.long), frozen, None, rows)
    assert none.shape == (0,)
    assert label_ranks(states[:0], torch.zeros(0, dtype=torch.long), frozen, None, rows).shape == (0,)
    with pytest.raises(ShapeError, match="one label a state: got 5 states and 2 labels"):
        token_cross_entropy(states, torch.zeros(2, dtype=torch.long), frozen, None, rows)


def test_ranks_count_likelier_tokens() -> None:
    frozen, rows = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0]])
    assert label_ranks(torch.ones(3, 1), torch.tensor([0, 1, 2]), frozen, None, rows).tolist() == [2, 0, 1]


def test_a_random_guess_scores_log_b() -> None:
    same = F.normalize(torch.ones(4, 3), dim=1)
    assert contrastive_loss(same, same, torch.tensor(10.0)).item() == pytest.approx(math.log(4))
    assert contrastive_loss(torch.eye(3), torch.eye(3), torch.tensor(100.0)).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ShapeError, match="must pair up"):
        contrastive_loss(same, same[:2], torch.tensor(1.0))


def test_distances_by_hand() -> None:
    mapped, target = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), torch.zeros(1, 2, 2)
    assert conditioning_distance(mapped, target).item() == 2.5
    assert conditioning_distance(mapped, target, "mse").item() == 6.25
    assert conditioning_distance(mapped, mapped.flip(-1), "cosine").item() == pytest.approx((1 - 24 / 25 + 1) / 2)
    with pytest.raises(ShapeError, match="another text encoder"):
        conditioning_distance(mapped, target[:, :1])


def test_equal_sequences_have_gradient_zero_not_nan() -> None:
    mapped = torch.ones(1, 2, 3, requires_grad=True)
    conditioning_distance(mapped, torch.ones(1, 2, 3)).sum().backward()
    assert torch.equal(mapped.grad, torch.zeros(1, 2, 3))


def test_a_shared_gradient_is_the_share() -> None:
    value = torch.tensor(2.0, requires_grad=True)
    shared = shared_gradient(value, 0.25)
    shared.backward()
    assert (shared.item(), value.grad.item()) == (2.0, 0.25)
