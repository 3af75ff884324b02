"""The input `choose`: another candidate comes out in the place of the best, and nothing is searched anew for it."""

from __future__ import annotations

import json
from typing import Any

from ...search.base.candidate import Candidate, select_diverse
from ...search.core.search import Search
from ...search.noise.recipe import Recipe, derived_seed
from ..store.search_store import SearchStore

MAX_CHOICES = 1_000_000  # characters: it comes from a stranger's workflow
DRAWN = 10_000  # candidates of a search whose first noises are known as its own
NOT_AMONG = "choose: that recipe is of no candidate of this search (is it of another seed?): the best comes out instead"
NOTHING_NEW = "your choice comes out; nothing was searched anew"


def chosen_recipe(text: str, name: str = "") -> Recipe | None:
    """Read the input for one search; None for the best.

    Args:
        text: empty; or a recipe, for every search that has it among its candidates; or, where the node searches several times
            in one prompt (in a loop, or for a batch or a list), a JSON object of recipes by the names of searches.
        name: of the search: its node's execution id, "[item]" of a list, "#row" of a batch.

    Raises:
        ValueError: it is none of these.
    """
    if not text.strip():
        return None
    try:
        chosen = _by_search(text)
        recipes = {key: Recipe.from_json(json.dumps(value)) for key, value in chosen.items()}
        return recipes.get(name) if recipes else Recipe.from_json(text)
    except ValueError as error:
        raise ValueError(f"choose: it must be empty, for the best, or a candidate's recipe; {error}") from error


def _by_search(text: str) -> dict[str, Any]:
    """Return the recipes by the names of searches that a text holds; {} if it is something else."""
    try:
        data = json.loads(text) if len(text) <= MAX_CHOICES else None
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) and all(isinstance(value, dict) for value in data.values()) else {}


def only_known(search: Search, memory: SearchStore, wanted: Recipe | None) -> bool:
    """Whether the search is to compute nothing new: it was searched before, and the choice is one of its candidates."""
    if wanted is None or memory.ledger is None or not memory.ledger.knows(wanted):
        return False
    memory.ledger.only_known = _is_of(search, wanted) and memory.ledger.knows(search.baseline.recipe)
    return memory.ledger.only_known


def take(search: Search, memory: SearchStore, wanted: Recipe | None, keep: int) -> tuple[Candidate, list[Candidate]]:
    """Return the candidate that comes out first, and all that come out: the best, or the one that the user chose."""
    chosen = None if wanted is None else _candidate(search, memory, wanted)
    if chosen is not None:
        search.choose(chosen)
    elif wanted is not None:
        search.note(NOT_AMONG)
    ranked = search.ranked
    finalists = select_diverse(ranked, keep)
    if chosen is None:
        return ranked[0][0], finalists
    return chosen, [chosen, *(c for c in finalists if c is not chosen)][:keep]


def _candidate(search: Search, memory: SearchStore, wanted: Recipe) -> Candidate | None:
    """Return the candidate of a recipe; one that the user had led the search to before is not proposed again by itself."""
    found = next((candidate for candidate in search.candidates if candidate.recipe == wanted), None)
    if found is None and memory.ledger is not None and memory.ledger.only_known:
        found = search.add(wanted)
    return found


def _is_of(search: Search, recipe: Recipe) -> bool:
    """Whether a recipe begins with a noise of this search: the journal knows those of other seeds too."""
    own = search.baseline.recipe.start
    return recipe.start == own or any(recipe.start == derived_seed(search.seed, index) for index in range(DRAWN))
