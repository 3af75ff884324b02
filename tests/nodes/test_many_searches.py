"""What a server still holds of searches that ended: their last states, and not what they worked with."""

from __future__ import annotations

import gc
import tracemalloc
import weakref

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm
from remembered import keep_journals, prompt_for, remembered
from searching import at_call, interrupt, parts

from noise_search.nodes.server.live import ENDED, searches
from noise_search.nodes.store import search_store
from noise_search.search.journal.journal import Journal
from noise_search.search.methods.draft_search import DraftSearch
from noise_search.search.methods.random_search import RandomSearch

MIB = 1 << 20
BEFORE, AFTER, MOST = 30, 170, 10 * MIB


@pytest.fixture
def journals(tmp_path, monkeypatch):
    """References to all journals that are opened, and their folder."""
    keep_journals(tmp_path, monkeypatch, "512")
    opened, open_journal = [], search_store.open_journal

    def noted(key: str) -> Journal:
        journal = open_journal(key)
        opened.append(weakref.ref(journal))
        return journal

    monkeypatch.setattr(search_store, "open_journal", noted)
    return opened


@pytest.mark.parametrize("cancelled", [False, True])
def test_no_journal_outlives_its_search(journals, cancelled):
    """Its index holds every run and score there is; the page may ask for states, pictures and recipes all the same."""
    graph = parts("eps", steps=12)
    for seed in range(3):
        if cancelled:
            with at_call(20, interrupt), pytest.raises(mm.InterruptProcessingException):
                remembered(graph, seed, method=DraftSearch(), budget=6)
        else:
            remembered(graph, seed, method=DraftSearch(), budget=6)
    gc.collect()
    assert len(journals) == 3 and [one() for one in journals] == [None] * 3
    for feed in [listed.feed for listed in searches._listed.values()][-3:]:
        names = [row["thumb"] for row in feed.final["candidates"] if row["thumb"]]
        assert names and all(feed.album.get(name) for name in names) and set(names) <= set(feed.recipes)
        assert feed.album._files == {} and not feed.album._written and feed.search is None  # they are on disk


def test_pictures_without_a_folder_stay_in_memory():
    remembered(parts("eps"), 3, resume="off")
    feed = list(searches._listed.values())[-1].feed
    names = [row["thumb"] for row in feed.final["candidates"]]
    assert names and all(feed.album.get(name) for name in names)


@pytest.mark.matrix
@pytest.mark.parametrize("shared", [True, False], ids=["one journal that grows", "a journal for each"])
def test_what_searches_leave_in_memory_is_bounded(journals, shared):
    """Counted by Python's own allocator, so that nothing depends on when memory goes back to the system."""
    graph = parts("eps")

    def search(number: int) -> None:
        prompt = prompt_for("a toy" if shared else f"toy {number}")
        remembered(graph, number, prompt=prompt, method=RandomSearch())

    for number in range(BEFORE):
        search(number)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(BEFORE, BEFORE + AFTER):
        search(number)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(searches._listed) <= ENDED
    # What was there before is not traced, so that the last searches count whole: that is what a steady state may hold.
    assert grown <= MOST, f"{grown / MIB:.1f} MiB"
