"""Comparing the best two at a time: who is compared, what it is worth, and that it never costs the winner."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from analytic import Constant, Listed, latent_of, prepare, run
from torch import Tensor

from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.selection.cascade import judge_finalists
from noise_search.search.selection.pairwise import compare_finalists, play
from noise_search.verifiers.composite.cascade import Cascade

NAN = math.nan


def stronger(strengths: dict[int, float]) -> Callable[[int, int], float]:
    """Compare as the Bradley-Terry model says."""
    return lambda i, j: strengths[i] / (strengths[i] + strengths[j])


def test_ties_are_told_apart() -> None:
    finals = play([8.0, 8.0, 3.0, 8.0], stronger({0: 1, 1: 8, 3: 2}), finalists=4, near=0.5)
    shares = {0: (1 / 9 + 1 / 3) / 2, 1: (8 / 9 + 8 / 10) / 2, 3: (2 / 3 + 2 / 10) / 2}
    assert finals.shares == pytest.approx(shares)
    assert finals.scores == pytest.approx({i: 8 + 0.5 * share for i, share in shares.items()})
    assert finals.comparisons == 6


def test_order_is_that_of_the_bradley_terry_strengths() -> None:
    strengths = {0: 0.3, 1: 7.0, 2: 1.0, 3: 2.5, 4: 1.1}
    finals = play([5.0] * 5, stronger(strengths), finalists=9, near=1)
    assert sorted(finals.shares, key=finals.shares.get) == sorted(strengths, key=strengths.get)
    assert sum(finals.shares.values()) == pytest.approx(5 / 2)


def test_who_is_near_the_top() -> None:
    asked = []

    def compare(i: int, j: int) -> float:
        asked.append((i, j))
        return 0.5

    finals = play([7.4, 8.0, NAN, 7.5, 7.9, -math.inf], compare, finalists=4, near=0.5)
    assert list(finals.shares) == [1, 4, 3]
    assert sorted(asked) == [(1, 3), (1, 4), (3, 1), (3, 4), (4, 1), (4, 3)]  # every two, in both orders
    assert set(finals.scores.values()) == {8.25}


def test_no_more_than_so_many_and_the_first_of_equals() -> None:
    finals = play([1.0] * 7, lambda i, j: float(i < j), finalists=3, near=0)
    assert list(finals.shares) == [0, 1, 2] and finals.comparisons == 6


@pytest.mark.parametrize("scores", [[], [1.0], [NAN, NAN], [9.0, 3.0], [9.0, NAN]])
def test_nothing_to_compare(scores: list[float]) -> None:
    assert play(scores, lambda i, j: pytest.fail("asked"), finalists=4, near=0.5) is None


@pytest.mark.parametrize("finalists", [0, 1, -3])
def test_no_finalists_wanted(finalists: int) -> None:
    assert play([1.0, 1.0], lambda i, j: pytest.fail("asked"), finalists, near=0.5) is None


@pytest.mark.parametrize("bias", [1.0, 0.0])
def test_a_judge_of_positions_prefers_nobody(bias: float) -> None:
    finals = play([3.0] * 4, lambda i, j: bias, finalists=4, near=0.5)
    assert set(finals.shares.values()) == {0.5}


def test_a_biased_judge_still_tells_apart() -> None:
    worth = [1, 3, 2]
    finals = play([3.0] * 3, lambda i, j: 1.0 if worth[i] + 1 >= worth[j] else 0.0, finalists=3, near=0.5)
    assert finals.shares[1] > finals.shares[2] > finals.shares[0]


def test_finalists_stay_above_the_others() -> None:
    """A loser of the finals is no worse than whoever was not in them."""
    finals = play([8.0] * 5, lambda i, j: float(i > j), finalists=3, near=0.5)
    refined = [finals.scores.get(i, 8.0) for i in range(5)]
    assert refined == [8.0, 8.25, 8.5, 8.0, 8.0]


@pytest.mark.parametrize("answer", [1.5, -0.1, NAN, "first", None, True])
def test_what_is_no_probability(answer: object) -> None:
    with pytest.raises(ValueError, match="must be a probability"):
        play([1.0, 1.0], lambda i, j: answer, finalists=2, near=0)


# In a search.


@dataclass
class Pairwise(Constant):
    """Grades all alike; of two pictures it prefers the one whose first number is higher."""

    finalists: int = 4
    near: float = 0.5
    compared: list[tuple[float, float]] = field(default_factory=list)
    error: BaseException | None = None

    def compare(self, first: Tensor, second: Tensor) -> float:
        if self.error is not None:
            raise self.error
        a, b = (latent_of(images)[0, 0].item() for images in (first, second))
        self.compared.append((a, b))
        return float(a > b)


def ended(verifier: Constant, images: int = 6, **more: object):
    search = run(RandomSearch(), images, verifier, **more)
    return search


def never(error: BaseException) -> bool:
    return False


def test_the_winner_of_the_finals_wins_the_search() -> None:
    search = ended(verifier := Pairwise())
    before = search.scorer.calls, search.budget.nfe
    compare_finalists(search, never)
    firsts = [latent_of(search.evaluator.pictures(candidate))[0, 0].item() for candidate in search.candidates]
    finalists = sorted(range(4), key=lambda i: -firsts[i])
    best, score = search.ranked[0]
    assert best.index == finalists[0] and score == best.score == 1.0  # 0.5 and all of `near`
    assert len(verifier.compared) == 12
    assert search.finals["comparisons"] == 12 and search.finals["verifier"] == "part"
    assert [f["index"] for f in search.finals["finalists"]] == [0, 1, 2, 3]
    assert {f["index"]: f["wins"] for f in search.finals["finalists"]} == pytest.approx(
        {index: 1 - place / 3 for place, index in enumerate(finalists)}
    )
    assert all(f["score"] == 0.5 for f in search.finals["finalists"])  # what it was before
    refined = [0.5 + 0.5 * (1 - finalists.index(i) / 3) if i < 4 else 0.5 for i in range(6)]
    assert [c.score for c in search.candidates] == pytest.approx(refined)
    assert [c.index for c, _ in search.ranked] == sorted(range(6), key=lambda i: (-refined[i], i))
    assert (search.scorer.calls, search.budget.nfe) == before
    assert all(c.scores == {"part": 0.5} for c in search.candidates)  # raw ones stay


def test_a_clear_winner_is_not_compared() -> None:
    @dataclass
    class Clear(Listed):
        finalists: int = 4
        near: float = 0.5

        def compare(self, first: Tensor, second: Tensor) -> float:
            pytest.fail("asked")

    search = ended(Clear(numbers=[1, 5, 2, 3, 4, 4.4]))
    compare_finalists(search, never)
    assert search.finals is None and search.ranked[0][0].index == 1


@pytest.mark.parametrize("verifier", [Constant(), Pairwise(finalists=0)])
def test_verifiers_that_do_not_compare(verifier: Constant) -> None:
    search = ended(verifier)
    order = [(c.index, score) for c, score in search.ranked]
    compare_finalists(search, never)
    assert search.finals is None
    assert [(c.index, score) for c, score in search.ranked] == order


def test_within_an_ensemble_it_is_not_asked() -> None:
    @dataclass
    class Both:
        parts: tuple
        name: str = "both"

        def combine(self, scores: Tensor) -> Tensor:
            return scores.sum(1)

    search = ended(Both((verifier := Pairwise(name="a"), Constant(name="b"))))
    compare_finalists(search, never)
    assert search.finals is None and verifier.compared == []


def test_the_cheap_judge_of_a_cascade_is_not_asked() -> None:
    dear = Listed(numbers=[3, 1, 2], name="dear")
    search = ended(Cascade(verifier := Pairwise(name="cheap"), dear, 3))
    judge_finalists(search)
    before = [(c.index, score) for c, score in search.ranked], [c.score for c in search.candidates]
    compare_finalists(search, never)
    assert verifier.compared == [] and search.finals is None
    assert ([(c.index, score) for c, score in search.ranked], [c.score for c in search.candidates]) == before


def test_a_failure_does_not_cost_the_winner() -> None:
    search = ended(Pairwise(error=RuntimeError("out of order")))
    compare_finalists(search, never)
    assert search.ranked[0][0].index == 0 and search.ranked[0][1] == 0.5
    assert search.finals is None
    assert search.scorer.problems == ["verifier 'part' could not compare the finalists: out of order"]


def test_cancel_passes() -> None:
    search = ended(Pairwise(error=RuntimeError("cancel")))
    with pytest.raises(RuntimeError, match="cancel"):
        compare_finalists(search, lambda error: True)
    assert search.scorer.problems == []


def test_a_search_without_any_candidate() -> None:
    search = prepare(3, Pairwise())
    compare_finalists(search, never)
    assert search.finals is None


def test_without_scores_nothing_is_compared() -> None:
    search = ended(Pairwise(number=NAN))
    compare_finalists(search, never)
    assert search.finals is None and torch.isnan(torch.tensor(search.ranked[0][1]))
