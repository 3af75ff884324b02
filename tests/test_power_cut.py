"""When what is written is seen onto the disk: once a wave, at once where people or paid services answered; and power cuts."""

from __future__ import annotations

import errno
import os

import pytest
from analytic import Quadratic
from journaling import METHODS, Killed, go, prepare, run, said
from powercuts import Disk

from noise_search.search.journal.journal import LOST, Journal
from noise_search.search.noise.recipe import Recipe

IMAGES, WAVE = 8, 4
LINES, STATES = "journal.jsonl", "states"


@pytest.fixture
def disk(tmp_path, monkeypatch):
    disk = Disk(tmp_path, monkeypatch)
    yield disk
    disk.close()


def waves(disk, folder):
    """What was seen onto the disk after the journal was begun: for each time its lines were, how many states before them."""
    counts, states = [], 0
    begun = [path for path in disk.synced if path.startswith(folder)].index(f"{folder}/{LINES}") + 1
    for path in [path for path in disk.synced if path.startswith(folder)][begun:]:
        if path == f"{folder}/{LINES}":
            counts.append(states)
            states = 0
        elif path.endswith(".safetensors"):
            states += 1
    return counts


def test_all_is_seen_onto_the_disk_once_a_wave(disk, tmp_path):
    """States, then the folder with their names, then the lines; and nothing else after the journal was begun."""
    run(METHODS["random"], IMAGES, tmp_path / "j", wave=WAVE)
    assert waves(disk, "j") == [WAVE, WAVE]
    assert disk.synced[:3] == [f"j/{LINES}", "j", "."]
    for wave in (disk.synced[3 : WAVE + 5], disk.synced[WAVE + 5 :]):
        assert wave[WAVE:] == [f"j/{STATES}", f"j/{LINES}"]


def test_a_new_journal_is_seen_onto_the_disk_with_its_names(disk, tmp_path):
    Journal(tmp_path / "j", "k").close()
    assert disk.synced == [f"j/{LINES}", "j", "."]
    disk.synced.clear()
    Journal(tmp_path / "j", "k").close()
    assert disk.synced == []


class Paid(Quadratic):
    is_paid = True


def test_each_paid_answer_is_seen_onto_the_disk_at_once(disk, tmp_path):
    run(METHODS["random"], IMAGES, tmp_path / "j", Paid(), wave=WAVE)
    lines = disk.synced.count(f"j/{LINES}")
    assert lines == 1 + IMAGES  # the header, and an answer for each
    assert sum(path.endswith(".safetensors") for path in disk.synced) == IMAGES


def test_what_people_choose_and_command_is_seen_onto_the_disk_at_once(disk, tmp_path):
    journal = Journal(tmp_path / "j", "k")
    journal.add_run("a" * 32, {"what": {}, "calls": 1, "levels": []}, b"x")
    disk.synced.clear()
    journal.add_scores("b" * 32, "person", {"a": 0.0}, at_once=True)
    assert disk.synced == [f"j/{STATES}/{'a' * 32}.safetensors", "j/states", f"j/{LINES}"]
    for act in (lambda: journal.settle("c" * 32, "by", [1]), journal.forget_looks):
        disk.synced.clear()
        act()
        assert disk.synced == [f"j/{LINES}"]
    disk.synced.clear()
    journal.sync()
    journal.close()
    assert disk.synced == []


def cut_at_call(folder, name, call):
    """Run a search until a model call at which the machine stops."""
    left = [call]

    def on_call():
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    one = prepare(folder, IMAGES, on_call=on_call, wave=WAVE, stochastic=True)
    with pytest.raises(Killed):
        for _ in METHODS[name].run(one):
            pass
    return one


def known(folder):
    """Finished runs that can be recalled with what they left behind."""
    journal = Journal(folder, "a set-up")
    found = [name for name in journal.names if not journal.run(name)["what"] and journal.state(name) is not None]
    assert journal.notes in ([], [LOST])
    journal.close()
    return found


@pytest.mark.parametrize("luck", ["nothing more", "the lines", "the states"])
@pytest.mark.parametrize("name", ["random", "zero-order", "halving", "branching", "random with drafts"])
def test_a_power_cut_loses_at_most_a_wave(disk, tmp_path, name, luck):
    """Whatever the system wrote by itself before; what is lost is rendered again, and the search finds what it would have."""
    want = run(METHODS[name], IMAGES, tmp_path / "whole", wave=WAVE, stochastic=True)
    lucky = {"nothing more": lambda path: False, "the lines": lambda path: path.name == LINES,
             "the states": lambda path: path.suffix == ".safetensors"}[luck]  # fmt: skip
    for call in (30, 75, 110):
        folder = tmp_path / str(call)
        cut_at_call(folder, name, call)
        left = disk.left(tmp_path / "left" / str(call), also=lucky) / str(call)
        written, kept = known(folder), known(left)
        assert len(written) - len(kept) <= WAVE and set(kept) <= set(written)
        again = go(prepare(left, IMAGES, wave=WAVE, stochastic=True), METHODS[name])
        assert said(again) == said(want)


def test_a_disk_that_cannot_be_seen_onto_is_said_once(tmp_path, monkeypatch):
    journal = Journal(tmp_path, "k")

    def broken(handle):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        for name in "ab":
            journal.add_run(name * 32, {"what": {}, "calls": 1, "levels": []}, b"x")
            journal.sync()
    (note,) = journal.notes
    assert note.startswith("the journal could not be seen onto the disk (") and "Input/output error" in note
    assert journal.state("a" * 32) == b"x"
    journal.close()


def test_it_is_known_by_name_whether_anything_of_a_recipe_was_computed(tmp_path):
    search = run(METHODS["random with drafts"], IMAGES, tmp_path)
    journal = Journal(tmp_path, "a set-up")
    assert all(journal.knows(candidate.recipe) for candidate in search.candidates)
    assert not journal.knows(Recipe(12345, 12345))
    journal.close()
