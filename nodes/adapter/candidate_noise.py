"""The first noise of a session's candidates: drawn once, built upon without being drawn again."""

from __future__ import annotations

import torch
from torch import Tensor

from ...search.lockstep.rng import put_rng, stand_after
from ...search.noise.bounded_cache import BoundedCache
from ...search.noise.recipe import GIVEN, Recipe, make_noise
from .graph import SamplingInputs
from .noise import Drawn, at_seed, can_draw_apart, draw_apart, pack

KEPT = 32 << 20  # bytes of noises that others were made from: 128 of SDXL's at 1024 x 1024, 3 of Wan's at 480p and 81 frames
STATES = 128 << 10  # bytes of random states: neighbors of one pivot share their step seed


class CandidateNoise:
    """Noises of a graph's latent, by recipes and seeds.

    They are what stock nodes make, bit for bit, and so is the global random state that is left behind.
    """

    def __init__(self, graph: SamplingInputs, device: torch.device) -> None:
        """Draw nothing yet; `device` is where the sampler runs."""
        self._graph, self._device = graph, device
        self._given = pack(graph.given)
        self._at_hand: dict[int, Drawn] = {}  # by seed
        if graph.by_stock and can_draw_apart():
            self._at_hand[graph.noise.seed] = Drawn(self._given, graph.given_rng.cpu)
        self._noises: BoundedCache[Tensor] = BoundedCache(KEPT)
        self._states: BoundedCache[Tensor] = BoundedCache(STATES)

    def draw(self, seed: int) -> Tensor:
        """Return the noise (R, ...) that the stock noise node gives for `seed`, packed, and leave the state that it leaves.

        Nobody may write into it.
        """
        drawn = self._drawn(seed)
        self._leave(seed, drawn)
        return drawn.noise

    def of(self, recipe: Recipe) -> Tensor:
        """Return a recipe's first noise (R, ...), packed, and leave the state that the stock noise of its step seed leaves.

        Nobody may write into it.
        """
        if recipe.start == GIVEN and not recipe.moves:
            put_rng(self._graph.given_rng, self._device)
            return self._given
        last: dict[int, Drawn] = {}

        def draw(seed: int) -> Tensor:
            last.clear()
            last[seed] = self._drawn(seed)
            return last[seed].noise

        # What the connected NOISE makes at the step seed is made again: it may leave a random state of its own.
        own_state = recipe.connected and recipe.start == recipe.seed and not recipe.moves
        noise = make_noise(recipe, draw, self._given, self._connected, None if own_state else self._noises)
        if not own_state:
            self._leave(recipe.seed, last.get(recipe.seed))
        return noise

    def _drawn(self, seed: int) -> Drawn:
        return self._at_hand.get(seed) or draw_apart(self._graph.latent, seed)

    def _connected(self, seed: int) -> Tensor:
        return at_seed(self._graph.noise, self._graph.latent, seed)

    def _leave(self, seed: int, drawn: Drawn | None) -> None:
        """Leave the state that the stock noise of a seed leaves; `drawn`: that noise, if nothing was drawn since."""
        state = self._states.get(seed)
        if state is None:
            state = (drawn or self._drawn(seed)).state
            if state is None:  # the stock function itself drew it
                return
            self._states.add(seed, state)
        stand_after(seed, state, self._device)
