"""How like two sets of pictures are as a whole: FID and KID over the features of any network.

Published numbers use the pooled 2048 features of one Inception v3 of 2015 and at least 10,000 pictures; a distance says
nothing beside one of other features, another number of pictures or another way to resize.

Shape legend: N and M = pictures, D = feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gill.errors import DataError, ShapeError


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution in float64: mean [D] and covariance [D, D]."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, feature_ND: Tensor) -> Gaussian:
        """The one with the mean and the unbiased covariance of features.

        Raises:
            ShapeError: not a matrix of at least two rows. DataError: a value that is not finite.
        """
        if feature_ND.dim() != 2 or len(feature_ND) < 2:
            raise ShapeError(f"wanted features of two pictures or more, one row each; got {tuple(feature_ND.shape)}")
        if not feature_ND.isfinite().all():
            raise DataError("features hold a value that is not finite")
        feature_ND = feature_ND.double()
        return cls(feature_ND.mean(0), feature_ND.T.cov().reshape(feature_ND.shape[1], feature_ND.shape[1]))


def frechet_inception_distance(feature_ND: Tensor, feature_MD: Tensor) -> float:
    """FID (arXiv:1706.08500) of two sets, 0 for equal moments; 2 rows or more each."""
    return frechet_distance(Gaussian.of(feature_ND), Gaussian.of(feature_MD))


def frechet_distance(left: Gaussian, right: Gaussian) -> float:
    """|mean - mean|² + tr(A + B - 2 (A B)^½) of two normal distributions (Dowson and Landau 1982, eq. 4).

    The trace of (A B)^½ is that of (A^½ B A^½)^½, whose eigenvalues are real and not negative also for sets that are
    smaller than their features are wide.

    Raises:
        ShapeError: different widths.
    """
    if left.mean.shape != right.mean.shape:
        raise ShapeError(f"features have different widths: {len(left.mean)} and {len(right.mean)}")
    values, vectors = torch.linalg.eigh(left.covariance)
    root_DD = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root_DD @ right.covariance @ root_DD).clamp(min=0).sqrt().sum()
    spread = left.covariance.trace() + right.covariance.trace() - 2 * shared
    return float((left.mean - right.mean).square().sum() + spread)


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation of KID over random subsets."""

    mean: float
    deviation: float


def kernel_inception_distance(
    feature_ND: Tensor, feature_MD: Tensor, num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """KID (arXiv:1801.01401): unbiased squared MMD of the kernel (x·y / D + 1)³, of subsets of both sets.

    Unlike FID it does not shrink with the number of pictures, and may be below 0.

    Args:
        subset_size: pictures of each set in a subset, at most those there are.

    Raises:
        ShapeError: different widths, or fewer than two pictures.
    """
    if feature_ND.shape[1:] != feature_MD.shape[1:] or feature_ND.dim() != 2:
        raise ShapeError(f"wanted features of one width: got {tuple(feature_ND.shape)} and {tuple(feature_MD.shape)}")
    size = min(subset_size, len(feature_ND), len(feature_MD))
    if size < 2:
        raise ShapeError(f"a kernel distance needs two pictures or more, got {size}")
    generator = torch.Generator().manual_seed(seed)

    def some(feature: Tensor) -> Tensor:
        return feature[torch.randperm(len(feature), generator=generator)[:size].to(feature.device)].double()

    found = torch.tensor([squared_mmd(some(feature_ND), some(feature_MD)) for _ in range(num_subsets)]).double()
    return KernelDistance(float(found.mean()), float(found.std(correction=0)))


def squared_mmd(left_ND: Tensor, right_ND: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of as many rows on both sides (Gretton et al. 2012, lemma 6)."""
    size, width = left_ND.shape

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return (left @ right.T / width + 1) ** 3

    within = sum((kernel(rows, rows).sum() - kernel(rows, rows).trace()) for rows in (left_ND, right_ND))
    return float(within / (size * (size - 1)) - 2 * kernel(left_ND, right_ND).mean())
