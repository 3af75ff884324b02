"""Fréchet distances to given statistics, and the greedy search for a low one.

    FD^2 = |mu_1 - mu_2|^2 + tr(sigma_1) + tr(sigma_2) - 2 tr((sigma_1 sigma_2)^(1/2))

The last trace is that of (R sigma_1 R)^(1/2) with R = sigma_2^(1/2), which is symmetric: its eigenvalues are real, and
with n pictures only the n - 1 largest differ from zero. So a singular covariance needs no small number added to it.

References:
    GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017), arXiv 1706.08500
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of features.

    Attributes:
        mu: (D,), float64.
        sigma: (D, D), float64.
    """

    mu: Tensor
    sigma: Tensor


def gaussian_of(features: Tensor) -> Gaussian:
    """Return the mean and the covariance (over n - 1, as numpy's `cov`) of features (N, D), N at least 2."""
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features of shape {tuple(features.shape)} have no covariance: expected (N, D) of 2 or more pictures")
    features = features.double().cpu()
    mu = features.mean(0)
    centered = features - mu
    return Gaussian(mu, centered.T @ centered / (len(features) - 1))


def load_statistics(path: Path) -> Gaussian:
    """Read `mu` (D,) and `sigma` (D, D) of an .npz file, as pytorch-fid and the ADM reference batches have them.

    Raises:
        ValueError: Naming the file, if it holds no such statistics.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            mu, sigma = (torch.from_numpy(np.asarray(found[name], dtype=np.float64)) for name in ("mu", "sigma"))
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path}: expected an .npz file with the arrays mu (D,) and sigma (D, D): {error}") from error
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not (mu.isfinite().all() and sigma.isfinite().all()):
        raise ValueError(f"{path}: mu has shape {tuple(mu.shape)}, sigma {tuple(sigma.shape)}; expected finite (D,) and (D, D)")
    return Gaussian(mu, sigma)


def save_statistics(path: Path, statistics: Gaussian) -> None:
    """Write statistics as `load_statistics` reads them."""
    np.savez(path, mu=statistics.mu.numpy(), sigma=statistics.sigma.numpy())


def root(sigma: Tensor) -> Tensor:
    """Return the symmetric square root (D, D) of a covariance (D, D); negative rounding errors count as zero."""
    values, vectors = torch.linalg.eigh((sigma + sigma.T) / 2)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


class RunningDistance:
    """The Fréchet distance of a growing set of features to given statistics.

    Only sums are kept: of x - mu, of its square, and of z = (x - mu) R with its outer products, R the root of the given
    covariance. The covariance of z is R sigma R, so that a distance costs one symmetric eigenvalue problem of size D.

    Attributes:
        count: Features in the set.
    """

    def __init__(self, statistics: Gaussian) -> None:
        """Begin with the empty set."""
        self._mu, self._root, self._trace = statistics.mu, root(statistics.sigma), statistics.sigma.trace()
        size = len(statistics.mu)
        self.count = 0
        self._sum, self._square = torch.zeros(size, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        self._z_sum, self._outer = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)

    def add(self, feature: Tensor) -> None:
        """Take a feature vector (D,) into the set."""
        x, z = self._both(feature)
        self.count += 1
        self._sum += x
        self._square += x @ x
        self._z_sum += z
        self._outer += torch.outer(z, z)

    def distance(self, feature: Tensor) -> float:
        """Return the squared distance FD^2 of the set with one more feature vector (D,), which is not kept.

        One feature alone has the covariance 0.
        """
        x, z = self._both(feature)
        n = self.count + 1
        mean, z_mean = (self._sum + x) / n, (self._z_sum + z) / n
        fit = mean @ mean + self._trace
        if n == 1:
            return float(fit)
        own = (self._square + x @ x - n * (mean @ mean)) / (n - 1)
        moments = self._outer + torch.outer(z, z) - n * torch.outer(z_mean, z_mean)
        values = torch.linalg.eigvalsh(moments / (n - 1))[-min(n - 1, len(x)) :]  # the others are 0: sums of n - 1
        return float(fit + own - 2 * values.clamp(min=0).sqrt().sum())

    def _both(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        if feature.shape != self._mu.shape:
            raise ValueError(
                f"the features have shape {tuple(feature.shape)}, the statistics {tuple(self._mu.shape)}: they are not of"
                " one network"
            )
        x = feature.double().cpu() - self._mu
        return x, x @ self._root


def eight_bit(images: Tensor) -> Tensor:
    """Return images (B, H, W, 3) in [0, 1] as SaveImage writes them: (B, 3, H, W), uint8, cut and not rounded."""
    return (255.0 * images).clamp(0, 255).to(torch.uint8).permute(0, 3, 1, 2).contiguous()


class GreedyFid:
    """The paper's oracle verifier for FID: how close the pictures so far, and this one, come to given statistics.

    Score: minus FD^2 of the accepted pictures with the candidate. After each search the winner has to be `accept`ed.
    """

    name = "greedy FID"
    score_range = (-float("inf"), 0.0)
    needs_prompt, prompt = False, ""
    trusts_previews = False  # the distance is one of finished pictures

    def __init__(self, statistics: Gaussian, features: Callable[[Tensor], Tensor]) -> None:
        """Begin with no picture.

        Args:
            statistics: Of the real pictures.
            features: Gives features (B, D) of pictures (B, 3, H, W), uint8; of the network the statistics are of.

        Raises:
            ValueError: If the network gives features of another size than the statistics'.
        """
        self._running, self._features = RunningDistance(statistics), features
        self._running.distance(features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))[0])  # a wrong network is found now

    @property
    def count(self) -> int:
        """Pictures accepted so far."""
        return self._running.count

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1], each for itself: (B,) float32, higher is better."""
        features = self._features(eight_bit(images))
        return torch.tensor([-self._running.distance(row) for row in features], dtype=torch.float32)

    def accept(self, pictures: Tensor) -> None:
        """Take finished pictures (B, 3, H, W), uint8, into the set."""
        for row in self._features(pictures):
            self._running.add(row)
