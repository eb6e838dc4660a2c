"""The next token: what is kept, how often it is drawn, and that rows do not disturb each other.

Faults of the original that cannot return: exp of unshifted logits overflows above 88, and the nucleus is found row by
row in Python (SYSTEMS 1f 9).
"""

import pytest
import torch

from gill.errors import ShapeError
from gill.sampling import choose_tokens, kept_probabilities

LOGITS = torch.log(torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]]))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def counts(row: int, draws: int, **settings: float) -> torch.Tensor:
    """How often each token of a row is drawn."""
    rows = LOGITS[row].expand(draws, -1)
    return torch.bincount(choose_tokens(rows, generators(*range(draws)), **settings), minlength=4) / draws


def test_without_temperature_the_likeliest_token_is_taken_and_nothing_is_drawn() -> None:
    sources = generators(0, 1)
    before = [source.get_state() for source in sources]
    assert choose_tokens(LOGITS, sources).tolist() == [1, 0]
    assert all(torch.equal(source.get_state(), state) for source, state in zip(sources, before, strict=True))


def test_the_nucleus_is_the_fewest_likeliest_tokens_that_hold_the_mass() -> None:
    kept = kept_probabilities(LOGITS, 1.0, top_p=0.6)
    assert (kept[0] > 0).tolist() == [False, True, False, True]  # 0.4 + 0.3
    assert (kept[1] > 0).tolist() == [True, True, True, False]
    assert (kept_probabilities(LOGITS, 1.0, top_p=1e-9) > 0).sum(1).tolist() == [1, 1]


def test_top_k_keeps_the_likeliest_and_both_limits_hold_together() -> None:
    assert (kept_probabilities(LOGITS, 1.0, top_k=3)[0] > 0).tolist() == [False, True, True, True]
    assert (kept_probabilities(LOGITS, 1.0, top_p=0.6, top_k=1)[0] > 0).tolist() == [False, True, False, False]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    assert torch.allclose(counts(0, 4000, temperature=1.0), torch.tensor([0.1, 0.4, 0.2, 0.3]), atol=0.03)
    halved = torch.tensor([0.1, 0.4, 0.2, 0.3]).sqrt()  # temperature 2 takes the root
    assert torch.allclose(counts(0, 4000, temperature=2.0), halved / halved.sum(), atol=0.03)
    among_two = torch.tensor([0, 4 / 7, 0, 3 / 7])
    assert torch.allclose(counts(0, 4000, temperature=1.0, top_k=2), among_two, atol=0.03)


def test_what_is_forbidden_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0]]).expand(500, -1)
    assert set(choose_tokens(logits, generators(*range(500)), temperature=5.0).tolist()) == {1, 3}


def test_huge_logits_do_not_overflow() -> None:
    """Fault 9: exp(1000) is infinite, and the row was not a distribution."""
    logits = torch.tensor([[1000.0, 999.0, -1000.0]]).expand(2000, -1)
    drawn = choose_tokens(logits, generators(*range(2000)), temperature=1.0)
    assert (drawn == 0).float().mean().item() == pytest.approx(1 / (1 + torch.e**-1), abs=0.03)


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(0))
    together = choose_tokens(logits, generators(*range(5)), temperature=1.5, top_p=0.9)
    alone = [choose_tokens(logits[i : i + 1], generators(i), temperature=1.5, top_p=0.9)[0] for i in range(5)]
    assert together.tolist() == torch.stack(alone).tolist()


def test_a_row_without_a_generator_is_refused() -> None:
    with pytest.raises(ShapeError, match="got 1 for 2 rows"):
        choose_tokens(LOGITS, generators(0), temperature=1.0)
