"""Likeness of pictures and of sets of pictures, in closed form or by an independent implementation."""

import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from gill.errors import DataError, ShapeError
from gill.metrics import (
    Gaussian,
    cosine_similarities,
    frechet_distance,
    frechet_inception_distance,
    kernel_inception_distance,
    lpips_distances,
    squared_mmd,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_clip_similarity_is_the_cosine_of_the_pair() -> None:
    left = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 2.0]])
    right = torch.tensor([[4.0, 3.0], [0.0, 7.0], [-1.0, -1.0]])
    assert cosine_similarities(left, right).tolist() == pytest.approx([24 / 25, 0, -1])
    with pytest.raises(DataError, match="embedding 1"):
        cosine_similarities(left, right * torch.tensor([[1], [0], [1]]))
    with pytest.raises(ShapeError, match="pair up"):
        cosine_similarities(left, right[:2])


def test_equal_pictures_are_at_no_perceptual_distance() -> None:
    maps = [random(2, 3, 4, 4), random(2, 5, 2, 2)]
    assert lpips_distances(maps, maps).tolist() == [0, 0]


def test_perceptual_distance_worked_by_hand() -> None:
    # One place of two channels: directions (1, 0) and (.6, .8) differ by (.4, -.8), whatever their lengths.
    left, right = torch.tensor([5.0, 0.0]).view(1, 2, 1, 1), torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert lpips_distances([left], [right], [torch.tensor([1.0, 0.5])]).tolist() == pytest.approx([0.16 + 0.32])
    assert lpips_distances([left], [right]).tolist() == pytest.approx([2 - 2 * 0.6])
    # A second place that agrees halves a layer; layers add up.
    wide, other = torch.cat([left, left], 3), torch.cat([right, left], 3)
    assert lpips_distances([left, wide], [right, other]).tolist() == pytest.approx([0.8 + 0.4])
    with pytest.raises(ShapeError, match="layers must pair up"):
        lpips_distances([left], [wide])
    with pytest.raises(ShapeError, match="one weight a channel"):
        lpips_distances([left], [right], [torch.ones(3)])


def test_the_frechet_distance_of_two_gaussians_in_closed_form() -> None:
    # Axis-aligned: |mean - mean|^2 and the sum of (sigma - sigma')^2; a rotation of both changes nothing.
    rotation = torch.linalg.qr(random(3, 3)).Q
    ours, theirs = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 0.0]).double()
    left = Gaussian(rotation @ torch.tensor([1.0, 2.0, 0.0]).double(), rotation @ ours.diag() @ rotation.T)
    right = Gaussian(rotation @ torch.tensor([0.0, 0.0, 0.0]).double(), rotation @ theirs.diag() @ rotation.T)
    assert frechet_distance(left, right) == pytest.approx(5 + (1 - 2) ** 2 + 0 + 3**2)
    # Covariances that do not commute: the eigenvalues of A B are those of a 2 x 2 worked by hand.
    a, b = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double()
    zero = torch.zeros(2).double()
    # A B = [[2, 1], [.5, 1]]: trace 3, determinant 1.5; (sqrt(x) + sqrt(y))^2 = x + y + 2 sqrt(x y).
    wanted = 3 + 2 - 2 * (3 + 2 * 1.5**0.5) ** 0.5
    assert frechet_distance(Gaussian(zero, a), Gaussian(zero, b)) == pytest.approx(wanted)


def test_the_distance_of_sets_is_that_of_their_moments() -> None:
    # +-1 and +-3 around 0 and 1: unbiased variances 4 / 3 and 12.
    left, right = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]), torch.tensor([[-2.0], [4.0], [-2.0], [4.0]])
    wanted = 1 + ((4 / 3) ** 0.5 - 12**0.5) ** 2
    assert frechet_inception_distance(left, right) == pytest.approx(wanted)
    assert frechet_inception_distance(random(5, 20), random(5, 20)) == pytest.approx(0, abs=1e-5)  # fewer than wide
    with pytest.raises(DataError, match="not finite"):
        frechet_inception_distance(left * torch.inf, right)
    with pytest.raises(ShapeError, match="two pictures or more"):
        frechet_inception_distance(left[:1], right)
    with pytest.raises(ShapeError, match="different widths"):
        frechet_inception_distance(left, random(4, 2))


def test_the_kernel_distance_of_sets_worked_by_hand() -> None:
    # Kernel (x y + 1)^3 of width 1. Left 1, 1: k = 8. Right 0, 0: k = 1. Between: k = 1.
    assert squared_mmd(torch.ones(2, 1), torch.zeros(2, 1)) == pytest.approx(8 + 1 - 2)
    left, right = random(30, 6), random(30, 6, seed=1) + 0.3
    assert squared_mmd(left, right) == pytest.approx(float(poly_mmd(left, right)))  # of torchmetrics


def test_the_kernel_distance_is_the_mean_over_subsets() -> None:
    left, right = random(300, 6), random(400, 6, seed=1) + 0.3
    found = kernel_inception_distance(left, right, num_subsets=200, subset_size=50)
    assert found.mean == pytest.approx(squared_mmd(left, right[:300]), abs=0.05)
    assert found.deviation > 0
    assert found == kernel_inception_distance(left, right, num_subsets=200, subset_size=50)
    whole = kernel_inception_distance(left, right[:300])
    assert whole.mean == pytest.approx(squared_mmd(left, right[:300])) and whole.deviation == pytest.approx(0, abs=1e-9)
    with pytest.raises(ShapeError, match="one width"):
        kernel_inception_distance(left, random(4, 2))
