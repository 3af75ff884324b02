"""Step noise of SDE samplers: what runs in lockstep draw together is what stock trees draw, to the bit."""

from __future__ import annotations

import gc
import threading

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot

boot()

import comfy.k_diffusion.sampling as k_diffusion
import numpy as np
import torch
import torchsde
from sessions import session_for
from torchsde._brownian import brownian_interval

from noise_search.nodes.adapter import brownian
from noise_search.nodes.adapter.brownian import Forests, SharedTree, mixed_in, seed_within
from noise_search.search.noise.recipe import Recipe
from toys import empty_latent, guider, mask, sampler, sigmas_for, stock, toy_model

SEEDS = (5, 11, 2**50 - 1)
LEVELS = (torch.linspace(1, 0.03, 12) ** 1.3).tolist()
SHAPE = (1, 4, 8, 8)
SDE = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_gpu")


def trees(seeds=SEEDS, forests=None, **more):
    """Stock trees over the levels, or trees of a forest."""

    def make():
        low, high = torch.tensor(LEVELS[-1]), torch.tensor(LEVELS[0])
        return [torchsde.BrownianTree(low, torch.zeros(SHAPE), high, entropy=seed, **more) for seed in seeds]

    if forests is None:
        return make()
    with forests.starting():
        return make()


def counting(monkeypatch, owner, name):
    """Count the calls of a function."""
    calls, inner = [], getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *args, **kwargs: (calls.append(args), inner(*args, **kwargs))[1])
    return calls


@pytest.mark.parametrize("spawned", [(0, 0), (1, 1), (12345, 14), (2**20 - 1, 20), (2**33 + 1, 40)])
@pytest.mark.parametrize("entropy", [0, 5, 2**32, 2**40 + 3, 2**64 - 1])
def test_seeds_are_numpys(entropy, spawned):
    for size in (4, 24):
        want = np.random.SeedSequence(entropy=entropy, spawn_key=spawned, pool_size=size).generate_state(4)[0]
        pool = np.random.SeedSequence(entropy=entropy, pool_size=size).pool[0].item()
        assert seed_within(pool, mixed_in(size, spawned)) == want


@pytest.mark.parametrize("halfway", [False, True], ids=["steps", "half steps too"])
def test_increments_are_those_of_stock_trees(halfway):
    """Levels beyond the ends are cut to them; trees that are gone and trees that ask otherwise change nothing for the rest."""
    alone, together = trees(), trees(forests=Forests())
    asked = [(low, high) for high, low in zip(LEVELS, LEVELS[1:], strict=False)]
    if halfway:
        asked = [pair for low, high in asked for pair in ((low + 0.4 * (high - low), high), (low, high))]
    asked += [(0.2, 0.9), (0.0, 2.0), (0.5, 0.500002), (LEVELS[-1], LEVELS[0])]
    for number, pair in enumerate(asked):
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a(*pair), b(*pair))
        if number == 4:
            assert torch.equal(alone[1](0.1, 0.3), together[1](0.1, 0.3))
        if number == 6:
            alone, together = alone[1:], together[1:]
            gc.collect()
    assert together[0].forest.checked and not together[0].forest.off
    assert len(together[0].forest.trees) == 2


def test_one_tree_asks_for_all_and_each_interval_is_halved_once(monkeypatch):
    stock_draws = counting(monkeypatch, brownian_interval, "_randn")
    alone = trees()
    first = len(stock_draws)
    for high, low in zip(LEVELS, LEVELS[1:], strict=False):
        for tree in alone:
            tree(low, high)
    made = len(stock_draws) - first
    draws, halves = counting(monkeypatch, SharedTree, "draw"), counting(monkeypatch, brownian.Forest, "_halves")
    together = trees(forests=Forests())
    for high, low in zip(LEVELS, LEVELS[1:], strict=False):
        for tree in together:
            tree(low, high)
    intervals = [interval for _, _, interval, *_ in halves]
    assert len(intervals) == len(set(intervals)) and len(draws) == len(SEEDS) * len(intervals)
    assert 2 * len(draws) < made
    assert max(len(tree.known) for tree in together) <= brownian.KEPT


@pytest.mark.parametrize("kind", ["eps", "flow"])
@pytest.mark.parametrize("name", SDE)
def test_runs_are_stock_to_the_bit(monkeypatch, name, kind):
    """One candidate a call, so that nothing rounds; suspended in between; nobody else meets anything but the stock class."""
    g, latent = guider(toy_model(kind)), empty_latent(kind)
    if kind == "flow":
        latent["samples"] = torch.ones(1, 16, 8, 8)
        latent["noise_mask"] = mask(latent)
    session = session_for(g, sampler(name), sigmas_for(g.model_patcher, steps=6), latent, max_rows=1)
    want = [stock(g, seed, sampler(name), session.sigmas, session.graph.latent) for seed in SEEDS]
    made = counting(monkeypatch, brownian.Forest, "increment")
    outside = []
    session.limits.before_call = lambda: outside.append(torchsde.BrownianTree)
    runs = [session.start(Recipe(seed, seed)) for seed in SEEDS]
    session.advance(runs[:2], float(session.sigmas[2]))
    session.advance(runs)
    assert made and set(outside) == {brownian._STOCK}
    for run, expected in zip(runs, want, strict=True):
        assert torch.equal(run.latent, expected)


def test_what_would_be_another_noise_is_found_at_once(monkeypatch, caplog):
    wrong = brownian.Forest._halves
    monkeypatch.setattr(brownian.Forest, "_halves", lambda self, *more: tuple(part + 1e-7 for part in wrong(self, *more)))
    alone, together = trees(), trees(forests=Forests())
    for high, low in zip(LEVELS, LEVELS[1:], strict=False):
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a(low, high), b(low, high))
    assert together[0].forest.off and "drawn together it is another" in caplog.text


def test_other_threads_and_other_questions_have_the_stock_tree():
    forests, found = Forests(), []
    with forests.starting():
        thread = threading.Thread(target=lambda: found.append(trees((7,))[0]))
        thread.start()
        thread.join()
        mine = k_diffusion.BrownianTreeNoiseSampler(torch.zeros(SHAPE), LEVELS[-1], LEVELS[0], seed=7, cpu=True)
    assert found[0].forest is None and mine.tree.trees[0].forest is not None
    (alone,) = trees((7,))
    assert torch.equal(found[0](0.2, 0.7), alone(0.2, 0.7))
    assert torch.equal(mine.tree.trees[0](0.7), alone(0.7))
    with pytest.raises(RuntimeError, match="must respect ta <= tb"):
        mine.tree.trees[0](0.7, 0.2)
    assert torch.equal(mine.tree.trees[0](0.5, 0.5), torch.zeros(SHAPE))


def test_forests_go_with_their_trees():
    forests = Forests()
    together = trees(forests=forests)
    together[0](0.2, 0.7)
    assert len(forests._forests) == 1
    del together
    gc.collect()
    assert len(forests._forests) == 0
