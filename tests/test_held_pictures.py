"""How many decoded pictures a search holds at once: bounded by bytes, whatever the budget; of videos by `keep`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from analytic import AnalyticSession, LowFrequency, Part, Quadratic, latent_of, picture_of, prepare, said
from holding import Held

from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.methods.zero_order import ZeroOrderSearch
from noise_search.search.scoring import image_cache
from noise_search.search.scoring.scorer import Scorer
from noise_search.search.selection.cascade import judge_finalists
from noise_search.search.selection.pairwise import compare_finalists
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.composite.ensemble import RANK_MEAN, Ensemble

FRAMES = 50
VIDEO = FRAMES * 4 * 4 * 3 * 4  # bytes
ALLOWED = 3  # videos held, beside those of the `keep` best


class Videos(AnalyticSession):
    """Its pictures are videos; how many are held is looked at whenever another is made."""

    held: Held

    def decode(self, latent: Any, preview: bool = False) -> torch.Tensor:
        self.held.look(1)
        self.held.decodes += 1
        return picture_of(latent).repeat(FRAMES, 1, 1, 1)


@dataclass
class Watching(Part):
    """Like `Quadratic`, of each frame; how many videos are held is looked at whenever it is asked."""

    held: Held | None = None
    seed: int = 12345
    score_range: tuple[float, float] = (-1e9, 1e9)
    needs_prompt: bool = False
    prompt: str = ""

    def score(self, images: torch.Tensor, latents: torch.Tensor | None = None) -> torch.Tensor:
        self.held.look()
        return Quadratic(seed=self.seed).values(images)


@dataclass
class Comparing(Watching):
    """Compares finalists, too."""

    finalists: int = 4
    near: float = 1e9

    def compare(self, first: torch.Tensor, second: torch.Tensor) -> float:
        self.held.look()
        return float(latent_of(first[:1]).sum() > latent_of(second[:1]).sum())


VERIFIERS = {
    "single": lambda held: Watching(held=held),
    "ensemble": lambda held: Ensemble(tuple(Watching(str(seed), held=held, seed=seed) for seed in (2, 3, 4)), mode=RANK_MEAN),
    "cascade": lambda held: Cascade(Watching(held=held), Watching("dear", held=held, seed=3), 6),
    "finals": lambda held: Comparing(held=held),
}


def searched(budget: int, verifier: Any, held: Held, method: Any, keep: int) -> Any:
    """A whole search on videos, up to what its node puts out: (search, pictures)."""
    search = prepare(budget, verifier, keep=keep)
    search.session.__class__, search.session.held = Videos, held
    with held:
        for _ in method.run(search):
            held.look()
        judge_finalists(search)
        compare_finalists(search, lambda error: False)
        search.close()
        best = [candidate for candidate, _ in search.ranked[:keep]]
        pictures = search.evaluator.image_cache.joined(best)
        search.evaluator.scored_by(Scorer(Watching("held out", held=held, seed=9)), [search.baseline, *best])
    return search, pictures


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("budget", [8, 24])
@pytest.mark.parametrize("verifier", VERIFIERS)
@pytest.mark.parametrize("method", [RandomSearch(), HalvingSearch()], ids=["whole", "half-way"])
def test_videos_are_scored_one_by_one(monkeypatch, method, verifier, budget, keep):
    plain = Held(VIDEO)
    want, wanted = searched(budget, VERIFIERS[verifier](plain), plain, method, keep)
    monkeypatch.setattr(image_cache, "PICTURE_BYTES", VIDEO)
    held = Held(VIDEO)
    got, pictures = searched(budget, VERIFIERS[verifier](held), held, method, keep)
    assert held.most <= keep + ALLOWED < plain.most
    spent = {"spent": None}
    assert said(got) | spent == said(want) | spent and got.budget.nfe == want.budget.nfe
    assert got.scorer.calls == want.scorer.calls
    assert torch.equal(pictures, wanted) and len(pictures) == keep * FRAMES


def test_pictures_are_decoded_once_where_the_best_of_them_stay_the_best(monkeypatch):
    """One verifier: what is dropped never comes back."""
    monkeypatch.setattr(image_cache, "PICTURE_BYTES", VIDEO)
    held = Held(VIDEO)
    search, _ = searched(24, Watching(held=held), held, ZeroOrderSearch(), 2)
    assert held.decodes == len(search.candidates) + (search.baseline not in [c for c, _ in search.ranked[:2]])


@pytest.mark.parametrize("fits,groups", [(100, [8, 4]), (7, [7, 1, 4]), (5, [4, 4, 4]), (3, [2, 2, 2, 2, 2, 2]), (1, [1] * 12)])
def test_as_many_pictures_as_fit_are_scored_together(monkeypatch, fits, groups):
    """A wave of eight; where it does not fit, in whole batches of two if the verifier answers two at once."""
    asked = []

    @dataclass
    class Two(LowFrequency):
        batch_size: int = 2 if fits in (5, 3) else 1

    search = prepare(12, Two())
    monkeypatch.setattr(image_cache, "PICTURE_BYTES", fits * 4 * 4 * 3 * 4)
    plain = search.scorer.ask
    search.scorer.ask = lambda shown: asked.append(len(shown)) or plain(shown)
    for _ in RandomSearch().run(search):
        pass
    assert asked == groups and len(search.rounds) == 2


def test_what_was_scored_before_a_failure_is_kept_with_its_round(monkeypatch):
    monkeypatch.setattr(image_cache, "PICTURE_BYTES", 2 * 4 * 4 * 3 * 4)

    class Failing(Quadratic):
        def values(self, images: torch.Tensor) -> torch.Tensor:
            if self.pictures > 5:
                raise RuntimeError("out of order")
            return super().values(images)

    search = prepare(8, Failing())
    with pytest.raises(ValueError, match="out of order"):
        list(RandomSearch().run(search))
    assert sorted(c.index for c in search.finished.members) == [0, 1, 2, 3, 4]
    assert [told.candidates for told in search.rounds] == [(0, 1, 2, 3, 4)]
    assert search.scorer.scored == 5


def test_a_picture_that_cannot_be_decoded_leaves_no_look_as_a_score(monkeypatch):
    """What a verifier said of a look half-way is no score of the finished picture."""
    search = prepare(4, Quadratic())
    looks = []

    def decode(latent: Any, preview: bool = False) -> torch.Tensor:
        looks.append(preview)
        if not preview:
            raise RuntimeError("no picture")
        return picture_of(latent)

    search.session.decode = decode
    with pytest.raises(RuntimeError, match="no picture"):
        list(HalvingSearch().run(search))
    assert True in looks and search.finished.members == [] and search.rounds == []
