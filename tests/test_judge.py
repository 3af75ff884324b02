"""The judge: what verifiers may answer, what happens when they do not, and how scores are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from analytic import Constant, Listed, Part, Throwing, as_dict, prepare, run

from noise_search.search.base.candidate import Candidate, finite_or_none, select_diverse
from noise_search.search.base.pool import Pool
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.noise.recipe import BranchPoint, Recipe
from noise_search.search.scoring.scorer import Scorer, VerifierError
from noise_search.verifiers.composite.ensemble import CALIBRATED, Ensemble

NAN, INF = math.nan, math.inf


class Cancelled(Exception):
    pass


def candidates(*indices):
    return [Candidate(index, Recipe(index, index)) for index in indices]


def pictures(*values, frames=1):
    return [torch.full((frames, 2, 2, 3), float(value)) for value in values]


class Brightness(Part):
    """Scores the mean; `broken` maps a mean to what it returns or raises instead."""

    def __init__(self, name="brightness", broken=None):
        super().__init__(name)
        self.broken = broken or {}
        self.latents, self.seen = [], []

    def score(self, images, latents=None):
        self.latents.append(latents)
        self.seen.append(len(images))
        return super().score(images, latents)

    def values(self, images):
        means = images.mean((1, 2, 3))
        for index, value in enumerate(means.tolist()):
            answer = self.broken.get(value)
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                means[index] = answer
        return means


@dataclass
class Sum:
    """An ensemble."""

    parts: tuple
    weights: tuple
    name: str = "sum"

    def combine(self, scores):
        return scores @ torch.tensor(self.weights)


def scores(scorer, *values, frames=1, latents=None):
    found = scorer.score(candidates(*range(len(values))), pictures(*values, frames=frames), latents or [None] * len(values))
    return found.tolist()


@pytest.mark.parametrize(("batch_size", "calls"), [(None, 3), (1, 3), (2, 2), (3, 1), (64, 1)])
def test_a_part_is_asked_about_as_many_pictures_as_it_says(batch_size, calls):
    """One that does not say answers one at a time, so that each answer counts as it comes."""
    part = Brightness()
    if batch_size is not None:
        part.batch_size = batch_size
    scorer = Scorer(part)
    assert scores(scorer, 1, 2, 4) == [[1], [2], [4]]
    assert (part.asked, scorer.calls, scorer.problems) == (calls, 3, [])
    assert scorer.names == ["brightness"]


def test_a_batch_holds_whole_candidates():
    part = Brightness()
    part.batch_size = 4
    scorer = Scorer(part)
    images = [torch.cat(pictures(*range(count))) for count in (3, 1, 1, 6, 2, 2)]
    scorer.score(candidates(*range(6)), images, [None] * 6)
    assert part.seen == [4, 1, 6, 4]


def test_scores_are_float32_on_the_cpu_whatever_is_returned():
    class Whole(Part):
        def values(self, images):
            return torch.ones(len(images), dtype=torch.int64, requires_grad=False)

    assert Scorer(Whole()).score(candidates(0), pictures(1), [None]).dtype == torch.float32


def test_several_frames_are_averaged():
    scorer = Scorer(Brightness())
    images = [torch.cat(pictures(1, 2, 6)), torch.cat(pictures(4)), torch.cat(pictures(3, 5))]
    assert scorer.score(candidates(0, 1, 2), images, [None] * 3).tolist() == [[3], [4], [4]]
    assert scorer.calls == 6


def test_a_frame_that_is_nan_makes_the_candidate_nan():
    scorer = Scorer(Brightness(broken={2.0: NAN}))
    found = scorer.score(candidates(0, 5), [torch.cat(pictures(1, 2)), torch.cat(pictures(1, 3))], [None] * 2)
    assert math.isnan(found[0, 0])
    assert found[1, 0] == 2
    assert scorer.problems == ["verifier 'brightness' returned nan for candidate 0: it ranks last"]


def test_latents_are_handed_on_where_they_match_the_pictures():
    part = Brightness()
    part.batch_size = 4
    latents = [torch.full((1, 3), float(k)) for k in range(2)]
    scores(Scorer(part), 1, 2, latents=latents)
    assert torch.equal(part.latents[0], torch.cat(latents))
    scores(Scorer(part), 1, 2, frames=2, latents=latents)
    scores(Scorer(part), 1, 2, latents=["nested", "nested"])
    assert part.latents[1:] == [None, None]


class Returns(Part):
    def __init__(self, answer):
        super().__init__("odd")
        self.answer = answer

    def values(self, images):
        return self.answer(images)


WRONG = {
    "too few": (lambda images: torch.zeros(len(images) - 1), r"not \(0,\)"),
    "too many": (lambda images: torch.zeros(len(images) + 1), r"not \(2,\)"),
    "column": (lambda images: torch.zeros(len(images), 1), r"not \(1, 1\)"),
    "scalar": (lambda images: torch.tensor(1.0), r"not \(\)"),
    "list": (lambda images: [1.0] * len(images), "not list"),
    "none": (lambda images: None, "not NoneType"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_score_is_an_error(name):
    answer, message = WRONG[name]
    with pytest.raises(VerifierError, match=rf"verifier 'odd' failed on candidate 0: ValueError: .*{message}"):
        scores(Scorer(Returns(answer)), 1, 2, 3)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_score_can_be_skipped(name):
    scorer = Scorer(Returns(WRONG[name][0]), skip_errors=True)
    assert all(math.isnan(value) for [value] in scores(scorer, 1, 2, 3))
    assert [said[:36] for said in scorer.problems] == [f"verifier 'odd' failed on candidate {k}" for k in range(3)]
    assert scorer.calls == 0


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("skip", [True, False])
def test_no_number_ranks_last_and_is_noted(bad, skip):
    scorer = Scorer(Brightness(broken={2.0: bad}), skip_errors=skip)
    found = scores(scorer, 1, 2, 3)
    assert [found[0], found[2]] == [[1], [3]]
    assert math.isnan(found[1][0])
    assert scorer.problems == [f"verifier 'brightness' returned {bad} for candidate 1: it ranks last"]
    assert scorer.calls == 3


def test_stop_names_verifier_and_candidate():
    broken = KeyError("no such word")
    scorer = Scorer(Brightness("taste", broken={3.0: broken}))
    with pytest.raises(VerifierError) as caught:
        scorer.score(candidates(4, 7, 9), pictures(1, 3, 5), [None] * 3)
    assert str(caught.value).startswith("verifier 'taste' failed on candidate 7: KeyError: 'no such word'")
    assert "on_verifier_error" in str(caught.value)
    assert caught.value.__cause__ is broken


@pytest.mark.parametrize(("batch_size", "asked"), [(1, 3), (64, 4)])
def test_skip_finds_the_candidate(batch_size, asked):
    part = Brightness(broken={3.0: RuntimeError("no")})
    part.batch_size = batch_size
    scorer = Scorer(part, skip_errors=True)
    found = scorer.score(candidates(4, 7, 9), pictures(1, 3, 5), [None] * 3)
    assert [found[0, 0], found[2, 0]] == [1, 5]
    assert math.isnan(found[1, 0])
    assert scorer.problems == ["verifier 'brightness' failed on candidate 7: RuntimeError: no"]
    assert (part.asked, scorer.calls) == (asked, 2)


def test_a_single_picture_is_asked_for_once():
    part = Throwing()
    with pytest.raises(VerifierError):
        scores(Scorer(part), 1)
    assert part.asked == 1


def test_a_batch_that_is_too_large_is_scored_one_by_one():
    class Small(Brightness):
        batch_size = 2

        def values(self, images):
            if len(images) > 1:
                raise MemoryError
            return super().values(images)

    scorer = Scorer(Small())
    assert scores(scorer, 1, 2) == [[1], [2]]
    assert (scorer.calls, scorer.problems) == (2, [])


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("error", [Cancelled("stop"), KeyboardInterrupt()])
def test_interrupts_always_pass(skip, count, error):
    part = Throwing(error=error)
    scorer = Scorer(part, skip_errors=skip, is_interrupt=lambda e: isinstance(e, Cancelled))
    with pytest.raises(type(error)):
        scores(scorer, *range(count))
    assert part.asked == 1
    assert scorer.problems == []


def test_an_interrupt_passes_while_candidates_are_asked_one_by_one():
    class Moody(Part):
        batch_size = 2

        def values(self, images):
            raise RuntimeError("batch") if self.asked == 1 else Cancelled("stop")

    scorer = Scorer(Moody(), skip_errors=True, is_interrupt=lambda e: isinstance(e, Cancelled))
    with pytest.raises(Cancelled):
        scores(scorer, 1, 2)


@pytest.mark.parametrize("skip", [True, False])
def test_a_long_error_is_cut_and_says_so(skip):
    scorer = Scorer(Throwing("long", error=RuntimeError("x" * 120_000)), skip_errors=skip)
    if skip:
        scores(scorer, 1)
        (said,) = scorer.problems
    else:
        with pytest.raises(VerifierError) as raised:
            scores(scorer, 1)
        said = str(raised.value)
    assert said.startswith("verifier 'long' failed on candidate 0: RuntimeError: xxx") and len(said) < 800
    assert f"… ({120_000 + len('RuntimeError: ') - 600} more letters)" in said


def test_ensembles_nest():
    """Columns are the leaves, from left to right; each ensemble combines its own."""
    inner = Sum((Brightness("b"), Constant("c", number=10.0)), (1.0, 2.0))
    scorer = Scorer(Sum((Brightness("a"), inner, Constant("d", number=5.0)), (100.0, 1.0, 1000.0)))
    assert scorer.names == ["a", "b", "c", "d"]
    raw = scorer.score(candidates(0, 1), pictures(1, 2), [None] * 2)
    assert raw.tolist() == [[1, 1, 10, 5], [2, 2, 10, 5]]
    assert scorer.combine(raw).tolist() == [100 + 21 + 5000, 200 + 22 + 5000]
    assert scorer.calls == 8


def calibrated(*parts, on=2, weights=()):
    return Ensemble(parts, weights, CALIBRATED, calibrate_on=on)


def test_the_first_candidates_set_the_scales_for_all_pools():
    """Of whatever was scored first; then a score is the same in every pool."""
    scorer = Scorer(calibrated(Listed("a", numbers=[0, 2, 4, 1]), Listed("b", numbers=[10, 30, 0, 20])))
    first = scorer.score(candidates(0), pictures(0), [None])
    assert scorer.combine(first).tolist() == [0]
    second = scorer.score(candidates(1), pictures(0), [None])
    assert scorer.combine(torch.cat([first, second])).tolist() == [-2, 2]
    later = scorer.score(candidates(2, 3), pictures(0, 0), [None] * 2)
    assert scorer.combine(later).tolist() == [1, 0]
    assert scorer.combine(later[1:]).tolist() == [0]
    assert scorer.combine(torch.cat([later, second, first])).tolist() == [1, 0, 2, -2]


def test_a_candidate_counts_once_and_only_with_all_its_scores():
    """Candidate 0's picture, moved by a pixel four times, says nothing of how candidates differ."""
    scorer = Scorer(calibrated(Listed(numbers=[0, 50, 60, NAN, 2, 4])), skip_errors=True)
    for index in (0, 0, 0, 1, 2):
        scorer.score(candidates(index), pictures(0), [None])
    raw = scorer.score(candidates(3), pictures(0), [None])
    assert scorer.combine(raw).tolist() == [3]  # scales of 0 and 2


def test_nested_scales_are_set_by_the_same_candidates():
    inner = calibrated(Listed("a", numbers=[0, 2, 4]), on=2)
    outer = Sum((inner, Listed("b", numbers=[1, 1, 1])), (10.0, 1.0))
    scorer = Scorer(outer)
    raw = scorer.score(candidates(0, 1, 2), pictures(0, 0, 0), [None] * 3)
    assert scorer.combine(raw).tolist() == [-9, 11, 31]
    assert scorer.combine(raw[2:]).tolist() == [31]
    scorer = Scorer(calibrated(outer := Sum((Listed("a", numbers=[0, 2, 4]), Constant("b")), (2.0, 1.0)), on=2))
    raw = scorer.score(candidates(0, 1, 2), pictures(0, 0, 0), [None] * 3)
    assert scorer.combine(raw[2:]).tolist() == [3]  # sums 0.5, 4.5, 8.5


def test_names_are_made_unique():
    parts = tuple(Constant(name) for name in ("a", "b", "a", "a 2", "a"))
    assert Scorer(Sum(parts, (1.0,) * 5)).names == ["a", "b", "a 2", "a 2 2", "a 3"]


def test_many_parts_of_one_name_are_numbered():
    """In a time that grows as their number does."""
    many = 30_000
    scorer = Scorer(Sum((Constant("a"),) * many, (1.0,) * many))
    assert scorer.names == ["a", *(f"a {number}" for number in range(2, many + 1))]


def test_cancel_is_heard_between_two_parts():
    parts = [Constant(name) for name in "abc"]

    def check():
        if parts[1].asked:
            raise Cancelled

    scorer = Scorer(Sum(tuple(parts), (1.0,) * 3), skip_errors=True, is_interrupt=lambda e: isinstance(e, Cancelled), check=check)
    with pytest.raises(Cancelled):
        scores(scorer, 1, 2)
    assert [part.asked for part in parts] == [2, 1, 0]  # and between two pictures
    assert scorer.problems == []


def test_one_failing_part_fails_the_candidate_only():
    scorer = Scorer(Sum((Brightness("a"), Brightness("b", broken={2.0: ValueError("no")})), (1.0, 1.0)), skip_errors=True)
    raw = scorer.score(candidates(0, 1), pictures(1, 2), [None] * 2)
    assert raw[:, 0].tolist() == [1, 2]
    assert [math.isnan(x) for x in scorer.combine(raw).tolist()] == [False, True]
    assert scorer.problems == ["verifier 'b' failed on candidate 1: ValueError: no"]


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_combined_scores_that_are_no_numbers_are_nan(bad):
    scorer = Scorer(Sum((Brightness("a"),), (1.0,)))
    scorer.verifier.combine = lambda scores: torch.tensor([1.0, bad])
    assert [finite_or_none(x) for x in scorer.combine(torch.zeros(2, 1)).tolist()] == [1.0, None]
    assert math.isnan(scorer.combine(torch.zeros(2, 1))[1])


def test_previews_are_trusted_if_all_parts_do():
    sure, unsure = Brightness("a"), Brightness("b")
    unsure.trusts_previews = False
    assert Scorer(Sum((sure, sure), (1.0, 1.0))).trusts_previews
    assert not Scorer(Sum((sure, Sum((unsure,), (1.0,))), (1.0, 1.0))).trusts_previews


# The pool.


def pool_of(*values, combine=lambda raw: raw[:, 0]):
    pool = Pool(combine)
    for candidate, value in zip(candidates(*range(len(values))), values, strict=True):
        pool.add([candidate], torch.tensor([[float(value)]]))
    return pool


def order(pool):
    return [candidate.index for candidate, _ in pool.ranked()]


def test_best_first_ties_to_the_earlier_nan_last():
    assert order(pool_of(2, NAN, 3, 1, 3, NAN)) == [2, 4, 0, 3, 1, 5]
    assert order(pool_of(NAN, NAN)) == [0, 1]
    assert order(pool_of()) == []


def test_ties_go_to_the_lower_index_whatever_the_order_of_entry():
    pool = Pool(lambda raw: raw[:, 0])
    pool.add(candidates(5, 3), torch.tensor([[1.0], [1.0]]))
    pool.add(candidates(0), torch.tensor([[1.0]]))
    assert order(pool) == [0, 3, 5]


def test_ranks_are_computed_anew_as_the_pool_grows():
    def rank(raw):
        return raw[:, 0].argsort().argsort().float() + 1

    pool = pool_of(10, 30, combine=rank)
    assert [score for _, score in pool.ranked()] == [2, 1]
    pool.add(candidates(2), torch.tensor([[20.0]]))
    assert [(c.index, score) for c, score in pool.ranked()] == [(1, 3), (2, 2), (0, 1)]


def test_of_branches_of_one_run_the_best_is_shown_first():
    """0 and 3 are runs of their own; 1 and 2 branched from 0, 4 from 1."""
    members = candidates(0, 1, 2, 3, 4)
    root = members[0].recipe
    members[1].recipe, members[2].recipe = (root.branched(BranchPoint(0.5, 0.6, n, n)) for n in (1, 2))
    members[4].recipe = members[1].recipe.branched(BranchPoint(0.2, 0.3, 4, 4))
    ranked = [(members[k], 10.0 - place) for place, k in enumerate((4, 1, 0, 3, 2))]
    shown = {count: [c.index for c in select_diverse(ranked, count)] for count in (1, 2, 3, 9)}
    assert shown == {1: [4], 2: [4, 3], 3: [4, 1, 3], 9: [4, 1, 0, 3, 2]}


def test_a_branch_is_shown_before_a_picture_without_a_score():
    members = candidates(0, 1, 2, 3)
    members[1].recipe = members[0].recipe.branched(BranchPoint(0.5, 0.6, 1, 1))
    ranked = list(zip(members, [2.0, 1.0, math.nan, math.nan], strict=True))
    shown = {count: [c.index for c in select_diverse(ranked, count)] for count in (1, 2, 3, 9)}
    assert shown == {1: [0], 2: [0, 1], 3: [0, 1, 2], 9: [0, 1, 2, 3]}
    assert [c.index for c in select_diverse(ranked[2:], 1)] == [2]


def test_equal_candidates_are_not_the_same():
    """They hold tensors: a comparison by value would fail, or take two for one."""
    one, other = candidates(0, 0)
    assert one != other
    assert one in [other, one]


# Within a search.


def test_a_failure_ends_the_search_with_the_others_kept():
    part = Listed(numbers=[1, 2, 3, 4])
    with pytest.raises(VerifierError, match="failed on candidate 4: IndexError"):
        run(RandomSearch(), 8, part, wave=4)


@pytest.mark.parametrize("wave", [1, 3, 8])
def test_scores_are_computed_anew_when_the_scales_are_set_and_never_change_again(wave):
    """By hand: of 0, 2, 4, 6 the mean is 3 and the deviation the root of 5."""
    numbers = [0, 2, 4, 6, 8, 1, 3, 5]
    search = prepare(8, calibrated(Listed(numbers=numbers), on=4), wave=wave)
    for _ in RandomSearch().run(search):
        if len(search.finished.members) >= 4:
            assert [c.score for c in search.candidates[:4]] == pytest.approx([(x - 3) / 5**0.5 for x in (0, 2, 4, 6)])
    assert [c.score for c in search.candidates] == pytest.approx([(x - 3) / 5**0.5 for x in numbers])
    assert search.rounds[-1].score == pytest.approx(5**0.5)


def test_looks_set_the_scales_too_and_bring_finished_scores_up_to_date():
    search = prepare(8, calibrated(Listed(numbers=[4, 0, 2, 10]), on=3))
    list(search.render([search.baseline]))
    assert search.baseline.score == 0
    pool = search.preview([search.propose(), search.propose()], 0.5)
    spread = (8 / 3) ** 0.5
    assert pool.combined().tolist() == pytest.approx([-2 / spread, 0])
    assert search.baseline.score == pytest.approx(2 / spread)
    later = search.preview([search.propose()], 0.25)
    assert later.combined().tolist() == pytest.approx([8 / spread])


def test_a_skipped_failure_ranks_last():
    class Fails(Part):
        batch_size = 8

        def values(self, images):
            if len(images) > 1 or self.asked in (3, 5):
                raise RuntimeError("no")
            return torch.tensor([float(self.asked)])

    search = run(RandomSearch(), 5, Fails(), skip_errors=True)
    assert [c.index for c, _ in search.ranked] == [4, 2, 0, 1, 3]
    assert [as_dict(c)["score"] for c in search.candidates] == [2.0, None, 4.0, None, 6.0]
    assert len(search.scorer.problems) == 2
    assert search.notes == []


def test_what_was_discarded_comes_out_only_where_nothing_else_does():
    ranked = [(Candidate(index, Recipe(index, index), discarded=index > 1), 0.0) for index in range(4)]
    assert [c.index for c in select_diverse(ranked, 4)] == [0, 1]
    assert [c.index for c in select_diverse(ranked[2:], 4)] == [2]
