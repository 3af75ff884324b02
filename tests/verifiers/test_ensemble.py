"""Ensembles against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.composite.ensemble import (
    CALIBRATED,
    GATE,
    RANK_MEAN,
    WEIGHTED_SUM,
    Z_SCORE,
    Ensemble,
    size_of,
    tied_ranks,
)

INF = math.inf


@dataclass(frozen=True)
class Channel:
    """Scores an image by the mean of one channel."""

    channel: int = 0
    name: str = "channel"
    prompt: str = ""
    score_range: tuple[float, float] = (0.0, 1.0)
    trusts_previews: bool = True

    @property
    def needs_prompt(self) -> bool:
        return bool(self.prompt)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        return images[..., self.channel].mean((1, 2)).float().cpu()


def ensemble(count: int = 2, **settings: object) -> Ensemble:
    return Ensemble(tuple(Channel(i, name=f"v{i}") for i in range(count)), **settings)


def combined(scores: list[list[float]], **settings: object) -> list[float]:
    return ensemble(len(scores[0]), **settings).combine(torch.tensor(scores)).tolist()


def test_tied_ranks() -> None:
    values = torch.tensor([[3.0], [1.0], [3.0], [2.0], [3.0]])
    assert tied_ranks(values).flatten().tolist() == [4, 1, 4, 2, 4]


def test_rank_mean() -> None:
    scores = [[0.1, 90], [0.2, 70], [0.4, 80], [0.3, 10]]  # ranks (1, 4), (2, 2), (4, 3), (3, 1)
    assert combined(scores) == [2.5, 2, 3.5, 2]
    assert combined(scores, weights=(3, 1)) == [1.75, 2, 3.75, 2.5]
    assert combined(scores, weights=(1, 0)) == [1, 2, 4, 3]


def test_rank_mean_shares_ranks_of_ties() -> None:
    assert combined([[1, 5], [1, 6], [2, 5]]) == [1.5, 2.25, 2.25]


def test_a_negative_weight_turns_a_part_around() -> None:
    scores = [[0.1, 90], [0.2, 70], [0.4, 80], [0.3, 10]]
    assert combined(scores, weights=(1, -1)) == [1, 2.5, 3, 3.5]  # ranks (1, 1), (2, 3), (4, 2), (3, 4)


def test_z_score() -> None:
    # Mean 2, population deviation sqrt(2/3); the second column does not tell candidates apart.
    z = math.sqrt(1.5)
    assert combined([[1, 7], [2, 7], [3, 7]], mode=Z_SCORE) == pytest.approx([-z, 0, z])
    assert combined([[1, 5], [2, 5], [3, 8]], mode=Z_SCORE, weights=(1, 2)) == pytest.approx(
        [-z - math.sqrt(2), -math.sqrt(2), z + 2 * math.sqrt(2)]
    )


def test_z_score_of_equal_floats_is_zero() -> None:
    assert combined([[0.1], [0.1], [0.1]], mode=Z_SCORE) == [0, 0, 0]


def test_weighted_sum() -> None:
    assert combined([[1, 10], [2, -10]], mode=WEIGHTED_SUM, weights=(2, 0.5)) == [7, -1]


def test_calibrated_sum() -> None:
    # The first two: means 1 and 20, population deviations 1 and 10; z-scores (-1, -1), (1, 1), (3, -2).
    scores = [[0, 10], [2, 30], [4, 0]]
    settings = {"mode": CALIBRATED, "calibrate_on": 2, "weights": (1, 2)}
    assert combined(scores, **settings) == [-3, 3, -1]
    assert combined([*scores, [100, -999]], **settings)[:3] == [-3, 3, -1]  # what comes later changes nothing
    assert combined([[math.nan, 1], *scores], **settings) == [-INF, -3, 3, -1]  # no number, no part in the scales


def test_calibrated_sum_before_enough_candidates_are_there_is_the_z_score() -> None:
    scores = [[1, 5], [2, 5], [3, 8]]
    assert combined(scores, mode=CALIBRATED, weights=(1, 2)) == combined(scores, mode=Z_SCORE, weights=(1, 2))


def test_calibrated_sum_by_given_candidates() -> None:
    verifier = ensemble(mode=CALIBRATED, calibrate_on=2)
    first = torch.tensor([[0.0, 10], [2, 30], [50, 50]])
    assert verifier.combine(torch.tensor([[4.0, 0], [1, 20]]), first).tolist() == [1, 0]
    assert verifier.combine(torch.tensor([[4.0, 0]]), first[:0]).tolist() == [0]  # none yet: by itself
    assert (verifier.reference_rows, ensemble(mode=Z_SCORE).reference_rows) == (2, 0)


def test_calibrated_sum_leaves_out_a_part_that_did_not_tell_the_first_apart() -> None:
    assert combined([[0, 0.1], [2, 0.1], [4, 9]], mode=CALIBRATED, calibrate_on=2) == [-1, 1, 3]
    assert combined([[7, 0.1], [7, 0.1], [4, 9]], mode=CALIBRATED, calibrate_on=2) == [0, 0, 0]


def test_gate_then_rank() -> None:
    # Gate 0.5: 0, 2 and 4 pass, with ranks 1, 3 and 2 under the other part; 3 fails by less than 1.
    scores = [[0.9, 10], [0.1, 99], [0.6, 30], [0.4, 50], [0.5, 20]]
    assert combined(scores, mode=GATE, gates=(0.5, None)) == [1, -1, 3, 0, 2]


def test_gate_ranks_by_all_other_parts_with_their_weights() -> None:
    scores = [[1, 1, 3], [1, 2, 2], [1, 3, 1], [0, 9, 9]]
    assert combined(scores, mode=GATE, gates=(1, None, None), weights=(9, 1, 3)) == [2.5, 2, 1.5, 0]
    assert combined(scores, mode=GATE, gates=(1, None, None), weights=(9, -1, 0)) == [3, 2, 1, 0]


def test_when_nothing_passes_the_gate_leads() -> None:
    assert combined([[0.1, 3], [0.3, 2], [0.2, 1]], mode=GATE, gates=(0.5, None)) == [-2, 0, -1]


@pytest.mark.parametrize("mode", [RANK_MEAN, Z_SCORE, WEIGHTED_SUM, GATE, CALIBRATED])
def test_not_finite_ranks_last_and_leaves_the_others_alone(mode: str) -> None:
    settings = {"mode": mode, "gates": (0.5, None) if mode == GATE else ()}
    scores = [[0.1, 9], [0.6, 7], [0.8, 8], [0.9, 1]]
    expected = combined(scores, **settings)
    for bad in (math.nan, INF, -INF):
        got = combined([*scores[:2], [bad, 9], *scores[2:], [5, bad]], **settings)
        assert got == [*expected[:2], -INF, *expected[2:], -INF]
    assert combined([[math.nan, 1], [1, math.nan]], **settings) == [-INF, -INF]


@pytest.mark.parametrize("mode", [RANK_MEAN, Z_SCORE, WEIGHTED_SUM, CALIBRATED])
def test_a_single_part_keeps_its_order(mode: str) -> None:
    scores = torch.tensor([0.3, -2.0, 7.0, 0.3, 0.1])
    result = ensemble(1, mode=mode).combine(scores[:, None])
    assert torch.equal(tied_ranks(result[:, None]), tied_ranks(scores[:, None]))


@pytest.mark.parametrize("mode", [RANK_MEAN, Z_SCORE, WEIGHTED_SUM, GATE])
def test_permuting_candidates_permutes_the_result(mode: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (12, 3), generator=generator).float()
    order = torch.randperm(12, generator=generator)
    e = ensemble(3, mode=mode, gates=(3, None, None) if mode == GATE else (), weights=(1, 2, 0.5))
    assert torch.allclose(e.combine(scores)[order], e.combine(scores[order]))


@pytest.mark.parametrize(("mode", "expected"), [(RANK_MEAN, 1), (Z_SCORE, 0), (WEIGHTED_SUM, 5), (GATE, 1), (CALIBRATED, 0)])
def test_one_candidate(mode: str, expected: float) -> None:
    assert combined([[2, 3]], mode=mode, gates=(0, None) if mode == GATE else ()) == [expected]


def test_no_candidate() -> None:
    assert ensemble().combine(torch.zeros(0, 2)).shape == (0,)


def test_score_combines_the_batch() -> None:
    images = torch.tensor([[0.1, 0.9, 0], [0.2, 0.7, 0], [0.4, 0.8, 0]]).view(3, 1, 1, 3)
    assert ensemble().score(images).tolist() == [2, 1.5, 2.5]


def test_ensembles_nest() -> None:
    inner = Ensemble((Channel(0, "a"), Channel(1, "b")), name="inner")
    outer = Ensemble((inner, Channel(2, "c")), weights=(1, 3))
    images = torch.tensor([[0.1, 0.9, 0.3], [0.2, 0.7, 0.2], [0.4, 0.8, 0.1]]).view(3, 1, 1, 3)
    # inner: 2, 1.5, 2.5, that is ranks 2, 1, 3; c: ranks 3, 2, 1
    assert outer.score(images).tolist() == [11 / 4, 7 / 4, 6 / 4]


def test_a_part_that_returns_the_wrong_length_is_named() -> None:
    class Broken(Channel):
        def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
            return torch.zeros(1)

    with pytest.raises(ValueError, match=r"verifier 'broken' returned .*expected .*\(3,\)"):
        Ensemble((Channel(), Broken(name="broken"))).score(torch.rand(3, 2, 2, 3))


def test_equal_names_are_numbered() -> None:
    parts = (Channel(0), Channel(1, "channel 2"), Channel(2), Channel(0))
    assert [part.name for part in Ensemble(parts).parts] == ["channel", "channel 2", "channel 3", "channel 4"]
    assert [part.channel for part in Ensemble(parts).parts] == [0, 1, 2, 0]


def linked(levels: int) -> Ensemble:
    """Eight verifiers, and ensembles of eight times the one before."""
    found = Ensemble((Channel(),) * 8)
    for _ in range(levels - 1):
        found = Ensemble((found,) * 8)
    return found


def test_ensembles_of_eight_times_the_one_before_have_a_bound() -> None:
    assert size_of(linked(2)) == 1 + 8 * 9
    with pytest.raises(ValueError, match="ensemble: 584 verifiers are connected in all, .*; at most 128.*larger weight"):
        linked(3)


def test_a_long_chain_of_ensembles_has_the_same_bound() -> None:
    chain = Channel()
    with pytest.raises(ValueError, match="129 verifiers are connected in all"):
        for _ in range(2000):
            chain = Ensemble((chain,))
    assert size_of(chain) == 129


def test_cancel_is_heard_between_two_parts() -> None:
    asked = []

    class Asked(Channel):
        def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
            asked.append(self.name)
            return super().score(images, latents)

    def check() -> None:
        if asked == ["a", "b"]:
            raise KeyboardInterrupt

    inner = Ensemble((Asked(name="a"), Asked(name="b"), Asked(name="c")), check=check)
    with pytest.raises(KeyboardInterrupt):
        Ensemble((inner, Asked(name="d"))).score(torch.rand(2, 2, 2, 3))
    assert asked == ["a", "b"]


def test_what_it_says_of_its_parts() -> None:
    parts = (Channel(0, "a", "a cat"), Channel(1, "b", "a dog"), Channel(2, "c", "a cat"))
    assert Ensemble(parts).prompt == "a cat | a dog"
    assert Ensemble(parts).needs_prompt
    assert not ensemble().needs_prompt
    assert not Ensemble((Channel(), Channel(name="soft", trusts_previews=False))).trusts_previews
    assert ensemble(mode=WEIGHTED_SUM, weights=(2, -3)).score_range == (-3, 2)
    assert ensemble().score_range == (1, INF)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mode": "vote"}, "input 'mode' is 'vote'; choose one of rank mean"),
        ({"weights": (0, 0)}, "must be finite, and not all 0"),
        ({"weights": (math.nan, 1)}, "must be finite"),
        ({"weights": (1, 1, 1)}, "2 verifiers, 3 weights"),
        ({"mode": GATE}, "0 gates among 2 verifiers"),
        ({"mode": GATE, "gates": (0, 0)}, "2 gates among 2 verifiers"),
        ({"mode": GATE, "gates": (math.nan, None)}, "'gate_threshold' is NaN"),
        ({"mode": CALIBRATED, "calibrate_on": 1}, "'calibrate_on' is 1; a spread takes 2"),
    ],
)
def test_bad_settings(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ensemble(**settings)


def test_no_part() -> None:
    with pytest.raises(ValueError, match="Connect one to 'verifier_1'"):
        Ensemble(())


def test_a_cascade_is_no_part() -> None:
    cascade = Cascade(Channel(0, "a"), Channel(1, "b"))
    with pytest.raises(ValueError, match="'a, then b' is a cascade.*Connect this ensemble to the cascade"):
        Ensemble((Channel(), cascade))


def test_wrong_number_of_columns() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 1\); expected \(N, 2\)"):
        ensemble().combine(torch.zeros(3, 1))
