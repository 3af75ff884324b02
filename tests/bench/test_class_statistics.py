"""Fréchet distances and the greedy FID, against closed forms and torch-fidelity's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from noise_search.bench.class_statistics import (
    Gaussian,
    GreedyFid,
    RunningDistance,
    eight_bit,
    gaussian_of,
    load_statistics,
    root,
    save_statistics,
)


def features(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Return correlated Gaussian features (N, D), float64."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.randn(count, size, generator=generator, dtype=torch.float64) @ mix + seed


def distance_of(rows: torch.Tensor, statistics: Gaussian) -> float:
    """Return the distance of a set, its last row given as the candidate."""
    running = RunningDistance(statistics)
    for row in rows[:-1]:
        running.add(row)
    return running.distance(rows[-1])


def test_one_dimension_is_the_textbook_formula():
    # FD^2 of N(m, s^2) and N(M, S^2) is (m - M)^2 + (s - S)^2
    statistics = Gaussian(torch.tensor([2.0]).double(), torch.tensor([[9.0]]).double())
    rows = torch.tensor([[1.0], [5.0], [6.0]]).double()  # mean 4, variance 7
    assert distance_of(rows, statistics) == pytest.approx((4 - 2) ** 2 + (math.sqrt(7) - 3) ** 2, rel=1e-12)


def test_commuting_covariances_are_the_closed_form():
    turn = torch.linalg.qr(features(5, 5, seed=3))[0]
    wanted = torch.tensor([4.0, 1.0, 0.25, 9.0, 2.0]).double()
    mu = torch.arange(5.0).double()
    statistics = Gaussian(mu, turn @ torch.diag(wanted) @ turn.T)
    # Rows mean +- sqrt(n - 1) scale / sqrt(2) along each axis: 10 rows of covariance exactly diag(scale^2), turned.
    scale = torch.tensor([1.0, 2.0, 3.0, 0.5, 1.5]).double()
    steps = torch.diag(scale) * math.sqrt(9 / 2)
    rows = torch.cat([steps, -steps]) @ turn.T + 1.0
    expected = ((1.0 - mu) ** 2).sum() + ((scale - wanted.sqrt()) ** 2).sum()
    assert distance_of(rows, statistics) == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize("count", [2, 3, 7, 8, 9, 200])  # fewer, as many, and more than features
def test_the_running_form_is_the_librarys(count):
    class_features = pytest.importorskip("noise_search.bench.class_features", exc_type=ImportError)
    statistics = gaussian_of(features(500, 8, seed=1))
    rows = features(count, 8)
    # The library takes roots of eigenvalues that are 0 but for rounding; of 1e-16 they are 1e-8.
    assert distance_of(rows, statistics) == pytest.approx(class_features.fid(rows, statistics), rel=1e-6)


def test_a_singular_covariance_on_both_sides():
    rows = features(4, 30)
    same = gaussian_of(rows)
    assert distance_of(rows, same) == pytest.approx(0.0, abs=1e-4 * same.sigma.trace().item())
    assert distance_of(rows + 1.0, same) == pytest.approx(30.0, abs=1e-4 * same.sigma.trace().item())


def test_one_feature_has_no_covariance():
    statistics = gaussian_of(features(50, 6, seed=1))
    row = features(1, 6)
    expected = ((row[0] - statistics.mu) ** 2).sum() + statistics.sigma.trace()
    assert distance_of(row, statistics) == pytest.approx(expected.item(), rel=1e-12)


def test_root():
    sigma = gaussian_of(features(50, 6)).sigma
    assert torch.allclose(root(sigma) @ root(sigma), sigma, rtol=1e-9)


def test_gaussian_is_numpys():
    rows = features(20, 5)
    found = gaussian_of(rows)
    assert np.allclose(found.sigma, np.cov(rows.numpy(), rowvar=False)) and np.allclose(found.mu, rows.numpy().mean(0))
    with pytest.raises(ValueError, match="2 or more"):
        gaussian_of(rows[:1])


def colors(pictures: torch.Tensor) -> torch.Tensor:
    """Return the mean colour (B, 3) of pictures (B, 3, H, W), uint8, as features."""
    return pictures.double().mean((2, 3)) / 255


class TestGreedyFid:
    def flat(self, *values: tuple[float, float, float]) -> torch.Tensor:
        return torch.tensor(values)[:, None, None, :].expand(-1, 4, 4, -1)

    def test_it_prefers_what_the_set_lacks(self):
        real = gaussian_of(colors(eight_bit(self.flat((1, 0, 0), (0, 1, 0), (0, 0, 1)))))
        greedy = GreedyFid(real, colors)
        for picture in ((1, 0, 0), (0, 1, 0)):
            greedy.accept(eight_bit(self.flat(picture)))
        scores = greedy.score(self.flat((1, 0, 0), (0, 1, 0), (0, 0, 1)))
        assert scores.dtype == torch.float32 and scores.argmax() == 2
        assert scores[2] == pytest.approx(0.0, abs=1e-6)  # the set is then the real one
        assert greedy.count == 2  # scoring accepts nothing

    def test_a_row_does_not_depend_on_the_others(self):
        greedy = GreedyFid(gaussian_of(features(20, 3)), colors)
        pictures = torch.rand(3, 4, 4, 3, generator=torch.Generator().manual_seed(0))
        greedy.accept(eight_bit(pictures))
        together, apart = greedy.score(pictures), torch.cat([greedy.score(row[None]) for row in pictures])
        assert torch.equal(together, apart) and (together <= 0).all()

    def test_another_network_is_refused_at_once(self):
        with pytest.raises(ValueError, match="not of one network"):
            GreedyFid(gaussian_of(features(20, 5)), colors)

    def test_pictures_are_those_that_comfyui_saves(self):
        values = torch.tensor([0.0, 0.5, 0.9999, 1.0, 1.2, -0.1]).expand(1, 1, -1)[..., None].expand(-1, -1, -1, 3)
        saved = np.clip(255.0 * values[0].numpy(), 0, 255).astype(np.uint8)  # the line of SaveImage
        assert np.array_equal(eight_bit(values)[0].permute(1, 2, 0).numpy(), saved)


def test_statistics_files(tmp_path):
    path = tmp_path / "s.npz"
    statistics = gaussian_of(features(20, 4))
    save_statistics(path, statistics)
    found = load_statistics(path)
    assert torch.equal(found.mu, statistics.mu) and torch.equal(found.sigma, statistics.sigma)
    np.savez(path, mu=np.zeros(3, np.float32), sigma=np.eye(3, dtype=np.float32), mu_s=np.zeros(2))  # further arrays
    assert load_statistics(path).sigma.dtype == torch.float64
    for arrays, said in (({"mu": np.zeros(3)}, "expected an .npz"), ({"mu": np.zeros(3), "sigma": np.eye(2)}, "expected finite"),
                         ({"mu": np.full(2, np.nan), "sigma": np.eye(2)}, "expected finite"),
                         ({"mu": np.array([{}], object), "sigma": np.eye(1)}, "allow_pickle")):  # fmt: skip
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=said):
            load_statistics(path)
