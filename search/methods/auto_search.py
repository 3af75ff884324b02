"""Auto search: choose the method from what the search has to work with, and stop when there is nothing to find."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated

import torch

from ..base.candidate import finite_or_none
from ..base.pool import Pool
from ..core.search import Method, Round, Search
from ..scoring.scorer import Shown
from ..spec import Node, Tooltip
from .chain import Chain
from .draft_search import DraftSearch
from .random_search import RandomSearch
from .refinement import RefinementSearch

FEW_STEPS = 8  # a run this short cannot be cut, nor drafted
FEW_IMAGES = 4  # a budget below leaves nothing to plan
FEW_FOR_DRAFTS = 8  # a budget below pays for too few of them: docs/evidence.md
BEFORE_REFINING = 0.7  # share of the budget: docs/evidence.md
DEAR = 0.6  # drafts are not worth it if one takes more of a full candidate's time
ENOUGH = 6  # scores from which a spread is told
SHIFTS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # pixels: a picture moved this little is as good as before


def choose(
    images: int, steps: int, stochastic: bool, why_no_refining: str, why_no_drafts: str = "", draft_share_of_time: float = 0.0
) -> tuple[Method, str]:
    """Return the method for a search, and why, in words.

    Args:
        images: the budget, in whole images.
        steps: of a full run.
        stochastic: whether the sampler draws noise of its own.
        why_no_refining: why the end of a run cannot be redrawn; empty if it can.
        why_no_drafts: why drafts of few steps cannot be judged; empty if they can.
        draft_share_of_time: what a draft takes of a full candidate's time, verifier included; 0 if not known.
    """
    if images < FEW_IMAGES:
        return RandomSearch(), f"a budget of {images} images leaves nothing to plan"
    if steps <= FEW_STEPS:
        return RandomSearch(), f"runs of {steps} steps are too short for drafts"
    if draft_share_of_time > DEAR:
        share = f"{draft_share_of_time:.0%} of a whole candidate's time"
        return RandomSearch(), f"scoring takes so long that a draft costs {share}"
    first, why = DraftSearch(), "the sampler is deterministic, so that drafts tell which noise is good"
    if stochastic:
        first, why = RandomSearch(), "the sampler draws noise of its own, so that drafts would say little"
    elif images < FEW_FOR_DRAFTS:
        first, why = RandomSearch(), f"a budget of {images} images pays for too few drafts"
    elif why_no_drafts:
        first, why = RandomSearch(), f"drafts cannot be judged ({why_no_drafts})"
    if why_no_refining:
        return first, f"{why}; details cannot be refined ({why_no_refining})"
    return Chain(first, RefinementSearch(), BEFORE_REFINING), f"{why}; then details are improved"


def choose_for(search: Search, images: int, draft_share_of_time: float = 0.0) -> tuple[Method, str]:
    """Return the method for a search that has not begun, or rendered candidate 0 only, and why."""
    refining = RefinementSearch().why_not(search)
    if not search.scorer.needs_pictures:
        refining = "the verifier looks at a run's first model calls, which stay the same"
    return choose(
        images, search.planner.steps, search.session.stochastic, refining, search.planner.why_no_drafts, draft_share_of_time
    )


@dataclass(frozen=True)
class AutoSearch:
    """Render candidate 0, choose a method by what is known then, and stop early if the seed hardly matters.

    Known are the budget, the steps, whether the sampler draws noise, whether runs can be looked at half-way, and what
    a model call and a verifier call take. The search ends early if the first candidates' scores differ less than the
    verifier's own noise: the deviation of its score over candidate 0's picture moved by one pixel in each direction.
    The cost is the chosen method's, and four verifier calls.

    Attributes:
        stop_early: whether to compare the spread with the verifier's noise; never done where a person judges.
    """

    node = Node(
        node_id="NSAutoSearch",
        display_name="Auto Search",
        description="Renders your own seed, then chooses method and settings from the budget, the "
        "steps, the sampler and what the verifier costs; the report says what it chose and "
        "why. Ends early if the seed hardly matters.",
        search_aliases=("automatic", "auto", "choose method", "default search"),
    )

    stop_early: Annotated[
        bool,
        Tooltip(
            "End the search if the first candidates' scores differ less than the verifier's own "
            "noise (its score of your picture moved by one pixel): with distilled models the "
            "seed may hardly matter. Usual: on."
        ),
    ] = True
    name: str = field(default="auto search", init=False)

    def run(self, search: Search) -> Iterator[Round]:
        with search.lasting(self.wanted_levels(search)):  # candidate 0 may be the one to refine
            yield from search.render([search.start_candidate])
        if search.should_stop():
            return
        method, why = choose_for(search, search.planner.images, self._settled_share(search))
        search.use_method(method.name)
        search.note(f"auto search chose {method.name}: {why}")
        if not self.stop_early or search.scorer.asks_people:  # nobody is asked whether a moved picture is as good
            yield from method.run(search)
            return
        noise = settled_noise(search)
        with search.watching(lambda pool: stop_without_spread(search, pool, noise)):
            yield from method.run(search)

    def wanted_levels(self, search: Search) -> tuple[float, ...]:
        """Return the noise levels at which the method that may be chosen leaves the winner of the one before it."""
        return RefinementSearch().wanted_levels(search)

    def _settled_share(self, search: Search) -> float:
        """What a draft takes of a full candidate's time, as it was when this was first searched; 0 if not known.

        Of a candidate 0 that an earlier search left behind, there is no time to measure.
        """
        what = {"share_of_time": DraftSearch().steps_of(search)}
        share = search.scorer.settled(
            what, lambda: None if search.budget.recalled else self._share_of_time(search), search.start_candidate
        )
        return share or 0.0

    @staticmethod
    def _share_of_time(search: Search) -> float:
        """What a draft takes of a full candidate's time: steps / T of the sampling, all of decoding and scoring."""
        steps = DraftSearch().steps_of(search)
        fixed = search.evaluator.image_cache.seconds + search.scorer.seconds
        sampling = search.runs.seconds
        return (sampling * steps / search.planner.steps + fixed) / max(sampling + fixed, 1e-9)


def settled_noise(search: Search) -> torch.Tensor:
    """Return `verifier_noise` as it was when this was first searched: another answer of the verifier may end it elsewhere."""
    what = {"noise_of": search.scorer.names}
    noise = search.scorer.settled(
        what, lambda: list(map(finite_or_none, verifier_noise(search).tolist())), search.start_candidate
    )
    return torch.tensor([math.nan if value is None else value for value in noise])


def verifier_noise(search: Search) -> torch.Tensor:
    """Return how much each part's score (V,) varies over candidate 0's picture moved by one pixel, float32."""
    candidate, scorer = search.start_candidate, search.scorer
    pictures, promised = search.evaluator.pictures(candidate), search.evaluator.promised([candidate], scorer)[0]
    kinds = [{"moved": list(shift)} for shift in SHIFTS]
    moved = [Shown(candidate, None, candidate.latent, {}, what, scorer.known(candidate, what)) for what in kinds]

    def see(one: Shown) -> Shown:
        shift = tuple(one.what["moved"])
        there = {level: prediction.roll(shift, (1, 2)) for level, prediction in promised.items()}
        return one._replace(images=pictures.roll(shift, (1, 2)), predictions=there)

    raw = search.evaluator.in_groups(scorer, moved, see, scorer.ask)
    own = torch.tensor([[candidate.scores[name] for name in search.scorer.names]])
    return torch.cat([own, raw]).std(0, correction=0)


def stop_without_spread(search: Search, pool: Pool, noise: torch.Tensor) -> None:
    """End the search if no part tells its first independent candidates apart by more than its noise."""
    independent = (place for place, candidate in enumerate(pool.members) if candidate.parent is None)
    rows = [pool.raw(place) for place in islice(independent, ENOUGH)]
    if len(rows) < ENOUGH or search.ended:
        return
    spread = torch.tensor(rows).std(0)
    if bool(((spread <= noise) | spread.isnan()).all()):
        said = ", ".join(f"{name}: {s:.3g} against {n:.3g}" for name, s, n in
                         zip(search.scorer.names, spread.tolist(), noise.tolist(), strict=True))  # fmt: skip
        search.end(f"the seed hardly matters here: scores differ less than the verifier's own noise ({said})")
