"""The journal's file: what is read back, what a kill, a stranger or a flipped bit do to it, and how names are made."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sys

import pytest
import torch

from noise_search.search.journal.journal import DELETED, LOST, Journal, entry_name, state_path, worst_first
from noise_search.search.journal.lines import line_of
from noise_search.search.journal.score_cache import ScoreCache
from noise_search.search.noise.recipe import GIVEN, BranchPoint, Recipe

KEY, NAME = "0" * 32, "a" * 32


def written(folder, key=KEY):
    """A journal of two runs, one with a state, and their scores; closed."""
    journal = Journal(folder, key)
    journal.add_run(NAME, {"what": {}, "calls": 20, "levels": [1.0, 0.1]}, b"a latent")
    journal.add_scores(NAME, "clip", {"clip": 0.1, "style": None})
    journal.add_run("b" * 32, {"what": {"sigma": 0.3}, "calls": 7, "levels": [1 / 3]})
    journal.add_scores("b" * 32, "clip", {"clip": -1.5e-300, "style": 2.0})
    journal.close()
    return folder / "journal.jsonl"


def assert_whole(journal):
    assert journal.run(NAME)["calls"] == 20 and journal.run("b" * 32)["levels"] == [1 / 3]
    assert journal.state(NAME) == b"a latent" and journal.state("b" * 32) is None
    assert journal.scores(NAME, "clip") == {"clip": 0.1, "style": None} and journal.scores(NAME, "other") is None
    assert journal.scores("b" * 32, "clip") == {"clip": -1.5e-300, "style": 2.0}
    assert journal.notes == []


def test_what_is_written_is_read(tmp_path):
    written(tmp_path)
    journal = Journal(tmp_path, KEY)
    assert_whole(journal)
    assert list(journal.names) == [NAME, "b" * 32] and journal.run("c" * 32) is None


def test_every_line_is_json_with_a_checksum(tmp_path):
    lines = written(tmp_path).read_text().splitlines()
    assert len(lines) == 5 and all("crc" in json.loads(line) for line in lines)
    assert json.loads(lines[0])["key"] == KEY


@pytest.mark.parametrize("part", range(1, 12))
def test_a_line_that_was_cut_short_is_dropped(tmp_path, part):
    path = written(tmp_path)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(whole[: last + (len(whole) - last) * part // 12])
    journal = Journal(tmp_path, KEY)
    assert journal.run(NAME)["calls"] == 20 and journal.scores("b" * 32, "clip") is None and journal.notes == []
    assert path.read_bytes() == whole[:last]
    journal.add_scores("b" * 32, "clip", {"clip": -1.5e-300, "style": 2.0})
    journal.close()
    assert path.read_bytes() == whole
    assert_whole(Journal(tmp_path, KEY))


def test_a_cut_at_any_byte_loses_no_line_before_it(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        journal = Journal(tmp_path, KEY)
        assert journal.notes == []
        assert (journal.run(NAME) is not None) == (whole[:end].count(b"\n") >= 2)
        journal.close()


def lines_lost(journal):
    """How many of the four things that `written` wrote are not known."""
    known = [journal.run(NAME), journal.run("b" * 32), journal.scores(NAME, "clip"), journal.scores("b" * 32, "clip")]
    return known.count(None)


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_costs_its_line_and_no_other(tmp_path, bit):
    """One in the header costs nothing: the folder's name is the key."""
    path = written(tmp_path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for position in range(bit, len(whole) - len(lines[-1]), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
        journal = Journal(tmp_path, KEY)
        assert lines_lost(journal) <= (position >= len(lines[0]))
        said = [note.startswith(f"of the journal {path}, ") and note.endswith("they are passed over") for note in journal.notes]
        assert said == ([] if whole[position] == 10 else [True])
        journal.close()
        assert path.read_bytes()[position] != whole[position]  # what is there stays
    assert [file.name for file in tmp_path.iterdir() if "set-aside" in file.name] == []


def test_a_damaged_end_of_a_line_costs_neither_of_the_two(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    for position in [at for at, byte in enumerate(whole[:-1]) if byte == 10]:
        path.write_bytes(whole[:position] + b"*" + whole[position + 1 :])
        journal = Journal(tmp_path, KEY)
        assert lines_lost(journal) == 0 and journal.notes == []
        journal.close()


OTHER_LINES = {
    "a kind that there is not": {"kind": "dream", "name": NAME},
    "a kind that is no text": {"kind": ["run"], "name": NAME},
    "no kind": {"of": "nothing"},
    "no name": {"kind": "run", "what": {}, "calls": 1, "levels": []},
    "no what": {"kind": "run", "name": NAME, "calls": 1, "levels": []},
    "a what that is no object": {"kind": "run", "name": NAME, "what": [], "calls": 1, "levels": []},
    "calls that are none": {"kind": "run", "name": NAME, "what": {}, "calls": -1.5, "levels": []},
    "levels that are no numbers": {"kind": "run", "name": NAME, "what": {}, "calls": 1, "levels": ["high", 10**400]},
    "another state": {"kind": "run", "name": NAME, "what": {}, "calls": 1, "levels": [], "state": "in the cloud"},
    "gaps that are none": {"kind": "run", "name": NAME, "what": {}, "calls": 1, "levels": [], "gaps": 3},
    "a recipe that is none": {"kind": "run", "name": NAME, "what": {}, "calls": 1, "levels": [], "recipe": "a pinch of salt"},
    "scores without a verifier": {"kind": "scores", "name": NAME, "values": {"clip": 1.0}},
    "scores that are none": {"kind": "scores", "name": NAME, "by": "clip", "values": {"clip": "good"}},
    "scores of nothing": {"kind": "scores", "by": "clip", "values": {"clip": 1.0}},
    "nothing settled": {"kind": "settled", "name": NAME, "by": "clip"},
}


@pytest.mark.parametrize("entry", OTHER_LINES.values(), ids=OTHER_LINES)
def test_a_line_of_another_version_is_passed_over(tmp_path, entry):
    path = written(tmp_path)
    with path.open("ab") as file:
        file.write(line_of(entry) + line_of({"kind": "scores", "name": NAME, "by": "last", "values": {"clip": 3.0}, "new": {}}))
    whole = path.read_bytes()
    for _ in range(2):
        journal = Journal(tmp_path, KEY)
        assert lines_lost(journal) == 0 and journal.run(NAME)["calls"] == 20
        assert journal.scores(NAME, "last") == {"clip": 3.0}
        assert journal.knows(Recipe(1, 1)) is False and worst_first(tmp_path) == [NAME]
        journal.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("header", [{}, {"format": "noise-search-journal"}, {"format": "noise-search-journal", "version": 1},
                                    {"format": "noise-search-journal", "version": 1, "key": KEY, "made_by": {"pack": "2.0"}},
                                    {"format": "a diary"}])  # fmt: skip
def test_a_header_with_other_fields_costs_nothing(tmp_path, header):
    path = written(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([line_of(header), *lines[1:]]))
    journal = Journal(tmp_path, KEY)
    assert lines_lost(journal) == 0 and journal.notes == []
    journal.close()


def test_a_journal_without_a_header_is_gone_on_with(tmp_path):
    path = written(tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    assert_whole(Journal(tmp_path, KEY))


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux shows them")
@pytest.mark.parametrize("fails", ["write", "ftruncate", "fsync"])
def test_a_header_that_cannot_be_written_leaves_no_file_open(tmp_path, monkeypatch, fails):
    def full(*args):
        raise OSError(errno.ENOSPC, "no space")

    if fails == "ftruncate":
        (tmp_path / "journal.jsonl").write_bytes(b'{"crc"')
    before = open_files()
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="no space"):
        Journal(tmp_path, KEY)
    assert open_files() == before
    monkeypatch.undo()
    assert Journal(tmp_path, KEY).notes == []


@pytest.mark.parametrize("begun", [False, True], ids=["deleted", "deleted and begun anew by another process"])
@pytest.mark.parametrize("with_state", [False, True])
def test_a_journal_that_is_deleted_while_it_is_written_is_noticed(tmp_path, begun, with_state):
    folder = tmp_path / KEY
    written(folder)
    journal = Journal(folder, KEY)
    shutil.rmtree(folder)
    if begun:
        written(folder)
    for name in ("c" * 32, "d" * 32):
        journal.add_run(name, {"what": {}, "calls": 3, "levels": []}, b"later" if with_state else None)
    assert journal.notes == [DELETED] and not journal.full
    found = Journal(folder, KEY)
    assert [found.run("c" * 32)["calls"], found.run("d" * 32)["calls"]] == [3, 3] and found.notes == []
    assert found.state("d" * 32) == (b"later" if with_state else None)
    assert (found.run(NAME) is not None) == begun
    assert json.loads((folder / "journal.jsonl").read_text().splitlines()[0])["key"] == KEY


def test_a_flipped_bit_in_the_last_line_costs_that_line(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:])
    journal = Journal(tmp_path, KEY)
    assert journal.scores("b" * 32, "clip") is None and journal.run("b" * 32) is not None and journal.notes == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: "my shopping list", "is no journal of Noise Search"),
        (lambda text: "my shopping list\n", "is no journal of Noise Search"),
        (lambda text: "[" * 90_000 + "\n", "is no journal of Noise Search"),
        (lambda text: "\n\n\n", "is no journal of Noise Search"),
        (lambda text: "\x00\xff\n" * 3, "is no journal of Noise Search"),
        (lambda text: text.replace('"crc"', '"src"'), "is no journal of Noise Search"),
    ],
)
def test_what_is_no_journal_is_set_aside(tmp_path, change, why):
    path = written(tmp_path)
    foreign = change(path.read_text())
    path.write_text(foreign)
    journal = Journal(tmp_path, KEY)
    (note,) = journal.notes
    assert note == f"the journal {path} {why}: it was set aside as journal.set-aside-1.jsonl, and a new one begins"
    assert (tmp_path / "journal.set-aside-1.jsonl").read_text() == foreign
    assert list(journal.names) == []
    journal.close()
    path.write_text(foreign)
    assert "set-aside-2" in Journal(tmp_path, KEY).notes[0]
    assert Journal(tmp_path, KEY).notes == []


def test_the_journal_of_another_set_up_or_version_is_set_aside(tmp_path, monkeypatch):
    written(tmp_path, "1" * 32)
    (note,) = Journal(tmp_path, KEY).notes
    assert "belongs to another set-up" in note
    monkeypatch.setattr(sys.modules[Journal.__module__], "VERSION", 2)
    (note,) = Journal(tmp_path, KEY).notes
    assert "is of version 1, not 2" in note and "set-aside-2" in note


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "longer"])
def test_a_state_that_is_not_what_was_written_is_not_there(tmp_path, damage):
    written(tmp_path)
    path = state_path(tmp_path, NAME)
    data = {"cut": b"a lat", "flipped": b"a lbtent", "longer": b"a latent!"}.get(damage)
    path.unlink() if data is None else path.write_bytes(data)
    journal = Journal(tmp_path, KEY)
    assert journal.state(NAME) is None and journal.state(NAME) is None and journal.notes == [LOST]
    journal.add_run(NAME, {"what": {}, "calls": 20, "levels": []}, b"again")
    assert journal.state(NAME) == b"again"


def test_a_state_is_whole_before_its_line_is_there(tmp_path, monkeypatch):
    journal = Journal(tmp_path, KEY)
    seen = []
    replace = os.replace
    append = journal._file.append
    monkeypatch.setattr("pathlib.Path.replace", lambda one, other: (seen.append("state"), replace(one, other)))
    monkeypatch.setattr(journal._file, "append", lambda *args: (seen.append("line"), append(*args))[1])
    journal.add_run(NAME, {"what": {}, "calls": 1, "levels": []}, b"x")
    assert seen == ["state", "line"] and [p.name for p in (tmp_path / "states").iterdir()] == [f"{NAME}.safetensors"]


def test_what_a_full_disk_did_not_take_is_said_and_written_later(tmp_path, monkeypatch):
    path = written(tmp_path)
    before = path.read_bytes()
    journal = Journal(tmp_path, KEY)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    journal.add_scores(NAME, "other", {"clip": 1.0})
    journal.add_run("c" * 32, {"what": {}, "calls": 3, "levels": []}, b"later")
    (note,) = journal.notes
    assert journal.full and note.startswith("the journal cannot be written (") and path.read_bytes() == before
    assert journal.scores(NAME, "other") is journal.run("c" * 32) is None
    monkeypatch.undo()
    journal.add_scores(NAME, "third", {"clip": 2.0})
    assert journal.notes == [] and not journal.full
    found = Journal(tmp_path, KEY)
    assert found.scores(NAME, "other") == {"clip": 1.0} and found.scores(NAME, "third") == {"clip": 2.0}
    assert found.state("c" * 32) == b"later"
    written_since = path.read_bytes().removeprefix(before)
    assert written_since.count(b"\n") == 3


def test_what_waits_is_written_when_the_journal_is_closed(tmp_path, monkeypatch):
    journal = Journal(tmp_path, KEY)
    monkeypatch.setattr(os, "write", lambda file, data: 0)
    journal.add_scores(NAME, "other", {"clip": 1.0})
    monkeypatch.undo()
    journal.close()
    assert Journal(tmp_path, KEY).scores(NAME, "other") == {"clip": 1.0}


def test_only_so_much_waits_for_a_full_disk(tmp_path, monkeypatch):
    """The note then stays: what was given up is not found later."""
    monkeypatch.setattr(sys.modules[Journal.__module__], "WAITING", 1000)
    journal = Journal(tmp_path, KEY)
    monkeypatch.setattr(os, "write", full := lambda file, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
    for name in "cde":
        journal.add_run(name * 32, {"what": {}, "calls": 3, "levels": []}, bytes(400))
    monkeypatch.undo()
    assert full is not os.write
    journal.add_scores(NAME, "other", {"clip": 1.0})
    (note,) = journal.notes
    assert "no space" in note and list(journal.names) == ["e" * 32] and not journal.full


def test_what_another_process_writes_while_it_is_opened_stays(tmp_path, monkeypatch):
    written(tmp_path)
    other, opened, late = Journal(tmp_path, KEY), os.open, [True]

    def open_late(*how):
        while late:
            late.pop()
            other.add_scores(NAME, "other", {"clip": 1.0})
        return opened(*how)

    monkeypatch.setattr(os, "open", open_late)
    Journal(tmp_path, KEY).add_scores(NAME, "third", {"clip": 2.0})
    found = Journal(tmp_path, KEY)
    assert found.scores(NAME, "other") == {"clip": 1.0} and found.scores(NAME, "third") == {"clip": 2.0}


def test_names_tell_recipes_looks_and_given_noise_apart():
    plain, cut = Recipe(1, 2), Recipe(1, 2).branched(BranchPoint(0.5, 0.7, 3, 4))
    whats = [{}, {"sigma": 0.5}, {"sigma": 0.5000000000000001}, {"draft_steps": 5}, {"draft_steps": 5, "sigma": 0.5}]
    names = [entry_name(recipe, what) for recipe in (plain, cut, Recipe(2, 1), Recipe(GIVEN, 2)) for what in whats]
    assert len(set(names)) == 20 and all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in names)
    assert entry_name(plain, {}, "a noise") == entry_name(plain, {})
    assert entry_name(Recipe(GIVEN, 2), {}, "a noise") != entry_name(Recipe(GIVEN, 2), {})


def test_scores_are_recalled_exactly_and_failures_asked_again(tmp_path):
    book = ScoreCache(Journal(tmp_path, KEY), "by", ["clip", "style"])
    third, nan = torch.tensor(1 / 3).item(), float("nan")
    book.put("clip", [(Recipe(1, 1), {"sigma": 0.5}, third), (Recipe(1, 1), {}, third), (Recipe(2, 2), {}, 0.1)])
    assert book.get(Recipe(1, 1), {"sigma": 0.5}) == {"clip": third} and not book.has(Recipe(1, 1), {"sigma": 0.5})
    book.put("style", [(Recipe(1, 1), {"sigma": 0.5}, nan), (Recipe(1, 1), {}, nan), (Recipe(2, 2), {}, -1e30)])
    got = book.get(Recipe(1, 1), {"sigma": 0.5})
    assert got["clip"] == third and math.isnan(got["style"]) and book.has(Recipe(1, 1), {"sigma": 0.5})
    assert book.get(Recipe(1, 1), {}) == {"clip": third}  # the part that failed is asked again
    assert book.get(Recipe(2, 2), {}) == {"clip": 0.1, "style": -1e30}
    assert ScoreCache(Journal(tmp_path, KEY), "by", ["clip"]).get(Recipe(2, 2), {}) == {"clip": 0.1}
    assert ScoreCache(Journal(tmp_path, KEY), "someone else", ["clip", "style"]).get(Recipe(2, 2), {}) == {}


def test_a_look_is_kept_until_every_part_has_scored_it(tmp_path):
    journal = Journal(tmp_path, KEY)
    book = ScoreCache(journal, "by", ["clip", "style"])
    name = entry_name(Recipe(1, 1), {"sigma": 0.5})
    for what in ({}, {"sigma": 0.5}):
        journal.add_run(entry_name(Recipe(1, 1), what), {"what": what, "calls": 3, "levels": []}, b"a latent")
    for part, left in (("clip", b"a latent"), ("style", None)):
        book.put(part, [(Recipe(1, 1), what, 1.0) for what in ({}, {"sigma": 0.5})])
        assert journal.state(name) == left == Journal(tmp_path, KEY).state(name)
    assert journal.state(entry_name(Recipe(1, 1), {})) == b"a latent" and journal.notes == []


def test_the_worst_come_first(tmp_path):
    journal = Journal(tmp_path, KEY)
    scores = {"a": (0.1, 5.0), "b": (0.3, 9.0), "c": (0.2, 1.0), "d": (None, None)}
    for name, (one, other) in scores.items():
        journal.add_run(name, {"what": {}, "calls": 1, "levels": []}, b"x")
        journal.add_scores(name, "by", {"one": one, "other": other})
    journal.add_run("look", {"what": {"sigma": 1.0}, "calls": 1, "levels": []})
    journal.add_scores("look", "by", {"one": 9.0, "other": 99.0})
    journal.add_run("e", {"what": {}, "calls": 1, "levels": []}, b"x")
    assert worst_first(tmp_path) == ["d", "a", "c", "b", "e"]
    assert worst_first(tmp_path / "nowhere") == []
