"""Evolutionary search: exact costs, who has children and where they start, and what it falls back to."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
from analytic import (
    SEED,
    Constant,
    Layout,
    Listed,
    Part,
    Quadratic,
    RandomNumbers,
    best,
    draw,
    latent_of,
    mean,
    prepare,
    run,
    said,
    statuses,
    winner,
)  # fmt: skip

from noise_search.search.base.budget import StopRules
from noise_search.search.methods.chain import Chain
from noise_search.search.methods.evolution import ONLY_FIRST, EvolutionSearch
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.trust_region import TrustRegionSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.noise.recipe import Recipe

NAN = math.nan
COSINE = math.sqrt(1 - 0.2**2)
BEST = EvolutionSearch(tournament=1.0)  # the best has all the children


def plan(images, steps, shares=(0.0, 0.4, 0.6, 0.8), first=0.5, heun=False):
    """The closed form: size of generation 0, and for each other its start and its size; and model calls in all."""
    full = 2 * steps - 1 if heun else steps
    starts = sorted({min(int(share * steps + 1e-9), steps - 2) for share in shares})
    costs = [full if k == 0 else 2 * (steps - k) - 1 if heun else steps - k for k in starts]
    population = max(1, round(first * images))
    left = (images - population) * full
    sizes = [left // sum(costs)] * len(costs)
    for g, cost in enumerate(costs):
        if left - sum(n * c for n, c in zip(sizes, costs, strict=True)) >= cost:
            sizes[g] += 1
    sizes[-1] += (left - sum(n * c for n, c in zip(sizes, costs, strict=True))) // costs[-1]
    spent = population * full + sum(n * c for n, c in zip(sizes, costs, strict=True))
    assert images * full - costs[-1] < spent <= images * full
    return population, list(zip(starts, sizes, strict=True)), spent


def start_of(candidate, steps=20):
    """After how many steps a candidate leaves its parent; 0 for a neighbor, None for one of its own."""
    if candidate.recipe.cuts:
        return round((1 - candidate.recipe.cuts[-1].renoise_to) * steps)
    return 0 if candidate.recipe.moves else None


def generations(search, steps=20):
    """Candidates by where they start, in order."""
    found = {}
    for candidate in search.candidates:
        found.setdefault(start_of(candidate, steps), []).append(candidate)
    return found


# Costs


def test_the_paper_s_shares_of_sixteen_images():
    assert plan(16, 20) == (8, [(0, 4), (8, 3), (12, 4), (16, 3)], 320)
    assert EvolutionSearch.sizes(160, [20, 12, 8, 4]) == [4, 3, 4, 3]
    assert EvolutionSearch.sizes(3, [20, 12, 8, 4]) == [0, 0, 0, 0]
    assert EvolutionSearch.sizes(11, [20, 4]) == [0, 2]


@pytest.mark.parametrize("images", [1, 2, 3, 5, 8, 16, 31])
@pytest.mark.parametrize(("steps", "heun"), [(20, False), (7, False), (2, False), (5, True), (20, True)])
@pytest.mark.parametrize("stochastic", [False, True])
def test_cost_is_the_closed_form(images, steps, heun, stochastic):
    population, children, spent = plan(images, steps, heun=heun)
    search = run(EvolutionSearch(), images, steps=steps, heun=heun, stochastic=stochastic)
    assert search.budget.nfe == spent
    found = {start: len(some) for start, some in generations(search, steps).items()}
    assert found.pop(None) == population and found == {k: n for k, n in children if n}
    assert statuses(search) == ["finished"] * len(search.candidates) and search.stopped == "" and search.notes == []
    assert search.evaluator.decodes == search.scorer.calls == len(search.session.runs) == len(search.candidates)


@pytest.mark.parametrize(
    "method",
    [EvolutionSearch((0.5,), 0.3), EvolutionSearch((0.0,), 0.25), EvolutionSearch((0.1, 0.9), 1.0), EvolutionSearch(elites=1)],
)
def test_cost_with_other_settings(method):
    population, children, spent = plan(20, 20, method.evolve_at, method.first_share)
    search = run(method, 20)
    assert search.budget.nfe == spent and len(generations(search)[None]) == population
    assert {k: len(generations(search).get(k, [])) for k, _ in children} == dict(children)


def test_shares_that_fall_on_one_step_are_one():
    assert [start for start, _ in plan(8, 4)[1]] == [0, 1, 2]
    assert set(generations(run(EvolutionSearch(), 12, steps=4), 4)) == {None, 0, 1, 2}


@pytest.mark.parametrize("then", [ZeroOrderSearch(), TrustRegionSearch(), HalvingSearch(), EvolutionSearch()])
def test_chains_never_cost_more_than_their_images(then):
    """The first part costs what it costs alone; what it leaves over goes on."""
    alone = run(EvolutionSearch(), 8)
    search = run(Chain(EvolutionSearch(), then, 0.5), 16)
    assert [c.recipe for c in search.candidates[: len(alone.candidates)]] == [c.recipe for c in alone.candidates]
    assert sum(c.nfe for c in search.candidates[: len(alone.candidates)]) == alone.budget.nfe
    assert 15 * 20 < search.budget.nfe <= 16 * 20
    again = run(Chain(then, EvolutionSearch(), 0.5), 16)
    assert 15 * 20 < again.budget.nfe <= 16 * 20
    assert any(c.recipe.cuts for c in again.candidates) and ONLY_FIRST not in "".join(again.notes)


def test_an_origin_whose_run_was_not_recorded_has_neighbors_only():
    search = run(Chain(RandomSearch(), EvolutionSearch(first_share=0.01), 0.5), 16, Listed(numbers=[0, 9, *[1] * 60]))
    assert search.budget.nfe == 16 * 20 and search.notes == []
    assert {start_of(c) for c in search.candidates[8:]} == {0}
    assert all(c.parent is not None for c in search.candidates[8:])


def test_limits_end_it():
    search = run(EvolutionSearch(), 16, rules=StopRules(max_model_calls=200))
    assert search.budget.nfe == plan(10, 20)[2] and generations(search)[16]
    search = run(EvolutionSearch(), 16, Constant(), rules=StopRules(patience=9))
    assert search.budget.nfe < 320 and search.stopped.startswith("no better candidate")


# Generations


def test_children_start_one_step_up_from_their_parent_s_state():
    search = run(EvolutionSearch(), 16)
    levels = search.session.sigmas.tolist()
    for candidate in search.candidates:
        start, parent = start_of(candidate), candidate.parent
        if start == 0:
            assert candidate.recipe.moves[-1].kind == "neighbor"
            assert candidate.recipe.moves[-1].amount == pytest.approx(COSINE)
            assert candidate.recipe.seed == search.candidates[parent].recipe.seed
        elif start:
            cut = candidate.recipe.cuts[-1]
            assert cut.sigma == levels[start + 1] and cut.renoise_to == levels[start]
            assert candidate.recipe == search.candidates[parent].recipe.branched(cut)
            assert candidate.nfe == 20 - start
    assert len({c.recipe.cuts[-1].noise_seed for c in search.candidates if c.recipe.cuts}) == 10


def test_elites_are_never_rendered_again():
    search = run(EvolutionSearch(), 16)
    assert len(search.session.started) + len(search.session.branches) == len(search.candidates)
    assert len(set(search.session.started)) == len(search.session.started)
    assert all(c.recipe != d.recipe for c in search.candidates for d in search.candidates[: c.index])


# Generation 0: 0 to 7, then 4, 3, 4 and 3 children.
SCORES = [1, 2, 9, 3, 8, 4, 7, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]


def test_the_best_has_all_children_if_all_are_in_the_tournament():
    search = run(BEST, 16, Listed(numbers=SCORES))
    assert [c.parent for c in search.candidates[8:]] == [2] * 14
    search = run(BEST, 16, Listed(numbers=[*SCORES[:8], 0, 10, 0, 0, 11, 0, 0, 0, 0, 12, 0, 0, 0, 0]))
    assert [c.parent for c in search.candidates[8:]] == [2] * 4 + [9] * 3 + [12] * 4 + [17] * 3


def test_only_elites_and_the_last_children_are_parents():
    """Of the first generation 2, 4 and 6 stay."""
    seen = set()
    for seed in range(8):
        search = run(EvolutionSearch(tournament=0.01), 16, Listed(numbers=SCORES), seed=seed)
        parents = [c.parent for c in search.candidates]
        assert set(parents[8:12]) <= set(range(8))
        assert set(parents[12:15]) <= {2, 4, 6, 8, 9, 10, 11}
        assert set(parents[15:19]) <= {2, 4, 6, 12, 13, 14}
        assert set(parents[19:22]) <= {2, 4, 6, 15, 16, 17, 18}
        seen |= set(parents[8:12])
    assert seen == set(range(8))  # by lot


def test_the_paper_s_tournament_chooses_the_best_nine_times_in_ten():
    """Of ten, nine are in it."""
    chosen = []
    for seed in range(30):
        search = run(EvolutionSearch((0.0,), 0.5), 20, Listed(numbers=[*range(10, 0, -1), *[0] * 10]), seed=seed)
        chosen += [c.parent for c in search.candidates[10:]]
    assert set(chosen) == {0, 1}
    assert chosen.count(0) / len(chosen) == pytest.approx(0.9, abs=0.06)


def test_a_candidate_without_a_score_is_the_last_choice():
    search = run(BEST, 16, Listed(numbers=[NAN, NAN, NAN, 1, NAN, NAN, NAN, NAN, *[0] * 14]))
    assert {c.parent for c in search.candidates[8:]} == {3}
    assert run(EvolutionSearch(), 16, Constant(number=NAN)).budget.nfe == 320


def test_states_are_kept_no_longer_than_they_are_needed():
    kept, search = [], prepare(16)
    branch = search.branch

    def branched(parent, sigma, renoise_to):
        kept.append((round(20 * (1 - renoise_to)), sum(bool(c.records) for c in search.candidates)))
        return branch(parent, sigma, renoise_to)

    search.branch = branched
    for _ in EvolutionSearch().run(search):
        pass
    search.close()
    assert [k for k in kept if k[0] == 8] == [(8, 7)] * 3  # three elites and four children
    assert [k for k in kept if k[0] == 16] == [(16, 7)] * 3
    assert all(not c.records for c in search.candidates) and search.runs.scope.levels == ()


def test_recipes_are_read_again():
    search = run(EvolutionSearch(), 30)
    assert max(len(c.recipe.cuts) for c in search.candidates) >= 2
    assert all(Recipe.from_json(c.recipe.to_json()) == c.recipe for c in search.candidates)


def test_the_same_search_twice_and_another():
    assert said(run(EvolutionSearch(), 16)) == said(run(EvolutionSearch(), 16))
    assert said(run(EvolutionSearch(), 16, wave=1))["order"] == said(run(EvolutionSearch(), 16))["order"]
    assert said(run(EvolutionSearch(), 16, seed=8)) != said(run(EvolutionSearch(), 16))


# What it finds


@dataclass
class Hills(Part):
    """Three hills of the same width; the last is three times as high as the first, which is candidate 0's."""

    seed: int = SEED

    def values(self, images):
        x = latent_of(images)
        return sum(h * (-(x - (0.1 + 0.9 * draw(s))).square().mean(1)).exp() for h, s in ((1, self.seed), (2, 54321), (3, 12345)))


@pytest.mark.parametrize("verifier", [Hills, Quadratic, Layout])
def test_it_beats_random_search(verifier):
    """Paired over seeds, by more than twice the standard error."""
    pairs = [[run(method, 24, verifier(), seed=s) for method in (EvolutionSearch(), RandomSearch())] for s in range(16)]
    gain = torch.tensor([best(one) - best(other) for one, other in pairs])
    assert float(gain.mean()) > 2 * float(gain.std()) / 4 > 0


def test_it_leaves_the_hill_that_local_search_stays_on():
    """Averaged over seeds; each begins on a hill of its own."""
    found = mean([best(run(EvolutionSearch(), 24, Hills(seed=s), seed=s)) for s in range(16)])
    local = mean([best(run(ZeroOrderSearch(), 24, Hills(seed=s), seed=s)) for s in range(16)])
    assert found > local + 0.05


@pytest.mark.parametrize("verifier", [Hills(), RandomNumbers(), Quadratic()])
def test_the_best_so_far_never_falls(verifier):
    search = run(EvolutionSearch(), 24, verifier)
    scores = [told.score for told in search.rounds]
    assert scores == sorted(scores) and scores[-1] == best(search) == search.candidates[winner(search)].score


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"evolve_at": ()}, "'evolve_at' must be ascending shares .* not nothing"),
        ({"evolve_at": (0.4, 0.2)}, "'evolve_at' must be ascending shares .* not 0.4, 0.2"),
        ({"evolve_at": (0.4, 0.4)}, "'evolve_at' must be"),
        ({"evolve_at": (0.4, 1.0)}, "'evolve_at' must be"),
        ({"evolve_at": (-0.1,)}, "'evolve_at' must be"),
        ({"evolve_at": (NAN,)}, "'evolve_at' must be"),
        ({"elites": 0}, "'elites' must be at least 1, not 0"),
        ({"mutation": 0.0}, "'mutation' must be above 0 and at most 1, not 0"),
        ({"mutation": 1.5}, "'mutation' must be"),
        ({"tournament": 0.0}, "'tournament' must be above 0 and at most 1, not 0; 0.9 is usual"),
        ({"first_share": 2.0}, "'first_share' must be"),
        ({"first_share": NAN}, "'first_share' must be"),
    ],
)
def test_bad_parameters(wrong, message):
    with pytest.raises(ValueError, match=message):
        EvolutionSearch(**wrong)


def test_spec_is_frozen():
    with pytest.raises(FrozenInstanceError):
        EvolutionSearch().elites = 2
