"""What a search node remembers of searches before: where there is a journal, the search goes on from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ...search.base.session import Session
from ...search.core.commands import log_in
from ...search.core.search import Search
from ...search.journal.caching_session import CacheContext, CachingSession
from ...search.journal.journal import THUMBS, Journal, entry_name
from ...search.journal.score_cache import ScoreCache
from ...search.noise.recipe import Recipe
from ...search.scoring.scorer import Scorer
from ..adapter.prompt_context import PromptContext
from ..adapter.session import ComfySession
from .fingerprints import LARGE, remembered_file
from .journals import any_journal, beside_grew, close_journal, forget, open_journal, room
from .recorded_answers import RememberingAsker
from .setup_key import Unreadable, noise_hash, setup_key, verifier_signature
from .state_codec import StateCodec
from .thumbnails import Thumbnails

FRESH, OFF = "fresh", "off"
READ_WHOLE = (
    f"files above {LARGE >> 20} MiB are now known by all that they hold, no longer by samples: what earlier versions wrote of "
    "searches with such files is not found again"
)
CHOOSES = "verifier"  # the input of the search's own


class SearchStore:
    """The journal of one search, if it has one.

    Attributes:
        session: what the search runs on: one that recalls, or the plain one.
        ledger: what that works with; None without a journal.
        why: why there is no journal, in words.
    """

    def __init__(self, session: ComfySession, caller: PromptContext, journal: Journal | None, why: str = "") -> None:
        """Work with a journal, or without one and a reason."""
        self.session: Session = session
        self.ledger: CacheContext | None = None
        self.why, self._caller = why, caller
        self._by = ""
        self._album: Thumbnails | None = None
        if journal is not None:
            given = noise_hash(session.graph)
            self.ledger = CacheContext(journal, StateCodec(session.device), session.budget, None, given)
            self.session = CachingSession(session, self.ledger)

    @property
    def notes(self) -> list[str]:
        """What the user should know, in words."""
        self.flush()
        pictures = [] if self._album is None else self._album.problems
        return [self.why] * bool(self.why) + ([] if self.ledger is None else self.ledger.journal.notes) + pictures

    def flush(self) -> None:
        """Wait until all small pictures are made and written."""
        if self._album is not None:
            self._album.flush()

    @property
    def place(self) -> str:
        """Where pictures and recipes are found, see `journals.place_folder`; empty without a journal."""
        return "" if self.ledger is None else self.ledger.journal.folder.name

    @property
    def recalled(self) -> dict[str, int] | None:
        """What the report says of it."""
        if self.ledger is None:
            return None
        budget = self.ledger.budget
        return {"model_calls": budget.recalled, "candidates": self.ledger.candidates, "redone": budget.redone}

    def name(self, recipe: Recipe, what: dict[str, Any]) -> str:
        """Return the name of a candidate's picture, see `entry_name`; empty without a journal."""
        return "" if self.ledger is None else self.ledger.name(recipe, what)

    def lend(self, scorer: Scorer, source: str) -> Scorer:
        """Let a scorer, whose verifier is connected to the input `source`, know what it said before; return it."""
        if self.ledger is None:
            return scorer
        reached = [scorer.verifier] if scorer.dear is None else [scorer.verifier, scorer.dear.verifier]
        try:
            by = verifier_signature(self._caller.prompt, self._caller.node, source, reached)
        except (Unreadable, OSError, RecursionError):  # what it is made of is not known: it is asked again
            return scorer
        journal, given = self.ledger.journal, self.ledger.given
        for one, signature in ((scorer, by), (scorer.dear, f"{by}-dear")):
            if one is not None:
                one.book = ScoreCache(journal, signature, one.names, given)
        if source == CHOOSES:
            self.ledger.book, self._by = scorer.book, by
        return scorer

    def follow(self, search: Search) -> None:
        """Have what people chose and commanded written down, and what they did before known."""
        if (ledger := self.ledger) is None:
            return
        if self._by:
            own = [ledger.name(search.baseline.recipe, {}), str(search.seed), *["large rounds"] * search.settings.large_rounds]
            search.control.keep_commands(log_in(ledger.journal, self._by, own))
        for sitting in search.scorer.sittings.values():
            sitting.asker = RememberingAsker(
                sitting.verifier.asker, ledger.journal, lambda index: ledger.name(search.candidates[index].recipe, {})
            )

    def forget_looks(self) -> None:
        """Have no look half-way recalled that was written so far."""
        if self.ledger is not None:
            self.ledger.journal.forget_looks()

    def album(self, otherwise: Thumbnails) -> Thumbnails:
        """Return where small pictures are kept: beside the journal, or `otherwise`."""
        if self.ledger is None:
            self._album = otherwise
        else:
            name = partial(entry_name, given=self.ledger.given)  # it outlives the search: the journal's index must not
            self._album = Thumbnails(self.place, self.ledger.journal.folder / THUMBS, name)
            self._album.grown = partial(beside_grew, self.place)
        return self._album


@contextmanager
def remembering(
    session: ComfySession, caller: PromptContext | None, resume: str, batching: str, forgotten: set[str]
) -> Iterator[SearchStore]:  # fmt: skip
    """Give a search its memory, and close it in the end.

    Args:
        session: the plain one.
        caller: the prompt around the node; without one nothing is remembered.
        resume: the node's input: "on", "fresh" to forget first, or "off".
        batching: the node's input.
        forgotten: keys of what was forgotten for other rows of the batch: rows that are alike share one journal.
    """
    journal, why = None, ""
    if resume != OFF and room() > 0:
        try:
            journal = _opened(session, caller or PromptContext(), resume == FRESH, batching, forgotten)
        except (Unreadable, OSError, RecursionError) as error:
            said = resume == FRESH or caller is not None and bool(caller.node)
            why = f"resume: this search is not written to disk and cannot be gone on with: {error}" if said else ""
    try:
        memory = SearchStore(session, caller or PromptContext(), journal, why)
        try:
            yield memory
        finally:
            memory.flush()  # while its place is that of a search that runs: later it may be forgotten
    finally:
        if journal is not None:
            close_journal(journal)


def _opened(session: ComfySession, caller: PromptContext, fresh: bool, batching: str, forgotten: set[str]) -> Journal:
    if not caller.node:
        raise Unreadable("the node was called without its prompt")
    older = not remembered_file().exists() and any_journal()
    key = setup_key(caller.prompt, caller.node, session.graph, batching)
    if fresh and key not in forgotten:
        forget(key)
        forgotten.add(key)
    journal = open_journal(key)
    if older and remembered_file().exists():
        journal.notes.append(READ_WHOLE)
    return journal
