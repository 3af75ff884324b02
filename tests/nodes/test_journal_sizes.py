"""The sizes of journals are kept: no file of theirs is looked at when a search begins or ends, however many there are."""

from __future__ import annotations

import os
import shutil
from collections import Counter

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

from remembered import keep_journals, remembered
from searching import parts

from noise_search.nodes.store import journal_sizes, journals
from noise_search.nodes.store.journal_sizes import NOTHING, Sizes, look
from noise_search.search.journal.journal import STATES, THUMBS, Journal
from noise_search.search.methods.random_search import RandomSearch

KIB, MIB = 1 << 10, 1 << 20
RUN = {"what": {}, "calls": 1, "levels": []}


@pytest.fixture
def root(tmp_path, monkeypatch):
    return keep_journals(tmp_path, monkeypatch, "3")


def place(number):
    return f"{number:032x}"


def write(key, states, size=KIB):
    """Open a journal as a search does, write states, and close it."""
    journal = journals.open_journal(key)
    for number in range(states):
        journal.add_run(f"{number:032x}", RUN, bytes(size))
    journals.close_journal(journal)
    return journal.folder


def as_new_process():
    """Know nothing of before."""
    journals._kept.clear()


def total():
    return journals._sizes().total


def of_all(root):
    return sum(look(path).total for path in root.iterdir())


@pytest.fixture
def counted(monkeypatch):
    """Counts what asks the file system of files and folders."""
    calls = Counter()
    for name in ("stat", "scandir", "listdir", "lstat"):
        ask = getattr(os, name)

        def noted(*args, _ask=ask, _name=name, **more):
            calls[_name] += 1
            return _ask(*args, **more)

        monkeypatch.setattr(os, name, noted)
    return calls


def test_what_begins_and_ends_costs_does_not_grow_with_files_and_journals(root, counted):
    def costs():
        before = dict(counted)
        write("f" * 32, 0)
        return {name: count - before.get(name, 0) for name, count in counted.items() if count > before.get(name, 0)}

    write("f" * 32, 1)
    few = costs()
    for number in range(20):
        write(place(number), 20, 100)
    assert costs() == few and sum(few.values()) < 40
    write("f" * 32, 200, 100)
    assert costs() == few


def test_sizes_are_right_after_whatever_was_written(root):
    write(place(1), 3)
    journal = journals.open_journal(place(1))
    journal.add_run(f"{0:032x}", RUN, bytes(5 * KIB))  # again, and larger
    journal.add_run("e" * 32, {**RUN, "what": {"sigma": 1.0}}, bytes(KIB))
    journal.drop_state("e" * 32)
    journals.close_journal(journal)
    graph = parts("eps")
    for _ in range(2):
        remembered(graph, 3, method=RandomSearch())  # with small pictures
    assert len(list(root.iterdir())) == 2 and total() == of_all(root)
    as_new_process()
    assert total() == of_all(root)


def test_what_a_killed_search_wrote_is_found_by_the_next_process(root):
    write(place(1), 2)
    journal = journals.open_journal(place(1))
    journal.add_run("e" * 32, RUN, bytes(64 * KIB))  # and then nothing: as after a kill
    journals._open.clear()
    journals._counts.clear()
    before = total()
    as_new_process()
    assert total() == of_all(root) and total() - before >= 64 * KIB
    journal.close()


def test_journals_that_no_sizes_are_kept_of_are_looked_at_once(root, counted):
    """As an earlier version leaves them."""
    for number in range(3):
        journal = Journal(root / place(number), place(number))
        journal.add_run("e" * 32, RUN, bytes(KIB))
        journal.close()
    assert total() == of_all(root)
    as_new_process()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_sizes, "look", lambda folder: pytest.fail("it was looked at before"))
        assert total() == of_all(root)


def test_two_processes_know_what_the_other_wrote(root):
    mine = Sizes(root)
    write(place(1), 2)
    mine.refresh(frozenset())
    assert mine.get(place(1)) == look(root / place(1))
    write(place(2), 4)
    other = root / place(3)
    Journal(other, place(3)).close()
    mine.put(place(3), look(other))
    assert total() == of_all(root)
    mine.refresh(frozenset())
    assert mine.total == of_all(root)
    journals.forget(place(1))
    mine.refresh(frozenset())
    assert mine.get(place(1)) == NOTHING and mine.total == of_all(root)


@pytest.mark.parametrize("damage", [b"", b"\xff\n\n[]\n{}\n", b'{"place": "../..", "size": [1, 2, 3, 4]}\n', None])
def test_a_file_of_sizes_that_is_damaged_or_gone_is_made_again(root, tmp_path, damage):
    write(place(1), 2)
    (file,) = tmp_path.glob("*sizes*")
    file.unlink() if damage is None else file.write_bytes(damage + file.read_bytes()[: 20 if damage else 0])
    as_new_process()
    assert total() == of_all(root)
    write(place(2), 3)
    as_new_process()
    assert total() == of_all(root)


def test_a_file_that_cannot_be_written_costs_no_search(root, tmp_path, caplog):
    write(place(1), 2)
    (file,) = tmp_path.glob("*sizes*")
    file.unlink()
    file.mkdir()
    as_new_process()
    assert write(place(2), 3).exists()
    assert any("Is a directory" in record.message for record in caplog.records)


def test_the_file_stays_short(root, tmp_path, monkeypatch):
    monkeypatch.setattr(journal_sizes, "SPARE", 10)
    for _ in range(40):
        write(place(1), 1)
    (file,) = tmp_path.glob("*sizes*")
    assert file.read_bytes().count(b"\n") <= 20 and total() == of_all(root)


def test_what_was_deleted_by_hand_does_not_cost_others(root):
    """The room is full by what was told, but not by what is there: nothing goes."""
    write(place(1), 20, MIB // 10)
    shutil.rmtree(root / place(1))
    kept = write(place(2), 15, MIB // 10)
    assert len(list((kept / STATES).iterdir())) == 15 and total() == of_all(root)


def test_the_room_holds_with_states_that_are_made_again_and_again(root):
    for number in range(12):
        write(place(number), 8, MIB // 16)
    assert of_all(root) <= 3 * MIB and total() == of_all(root)
    assert not list((root / place(0) / STATES).iterdir()) and len(list((root / place(11) / STATES).iterdir())) == 8


def test_small_pictures_count(root):
    remembered(parts("eps"), 3, method=RandomSearch())
    (folder,) = root.iterdir()
    assert journals._sizes().get(folder.name).others == sum(path.stat().st_size for path in (folder / THUMBS).iterdir()) > 0
