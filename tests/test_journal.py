"""The journal's file: what is read back, what a kill, a stranger or a flipped bit do to it, and how names are made."""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch

from noise_search.search.journal import LOST, Journal, entry_name, state_path, worst_first
from noise_search.search.recipes import GIVEN, Cut, Recipe
from noise_search.search.scorebook import ScoreBook

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


def test_any_flipped_bit_is_noticed(tmp_path):
    path = written(tmp_path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for position in range(0, len(whole) - len(lines[-1]), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        journal = Journal(tmp_path, KEY)
        (note,) = journal.notes
        assert "set aside as journal.set-aside-" in note and journal.run(NAME) is None
        journal.close()


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
        (lambda text: text.replace("calls", "halls"), "is damaged in line 2"),
        (lambda text: text.replace("\n", "\n\n", 2), "is damaged in line 2"),
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
    append = journal._append
    monkeypatch.setattr("pathlib.Path.replace", lambda one, other: (seen.append("state"), replace(one, other)))
    monkeypatch.setattr(journal, "_append", lambda *args, **more: (seen.append("line"), append(*args, **more)))
    journal.add_run(NAME, {"what": {}, "calls": 1, "levels": []}, b"x")
    assert seen == ["state", "line"] and [p.name for p in (tmp_path / "states").iterdir()] == [f"{NAME}.safetensors"]


def test_a_full_disk_ends_the_writing_and_is_said(tmp_path, monkeypatch):
    path = written(tmp_path)
    before = path.read_bytes()
    journal = Journal(tmp_path, KEY)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    journal.add_scores(NAME, "other", {"clip": 1.0})
    monkeypatch.undo()
    assert path.read_bytes() == before
    journal.add_scores(NAME, "other", {"clip": 1.0})
    (note,) = journal.notes
    assert journal.full and note.startswith("the journal cannot be written any more (") and path.read_bytes() == before
    assert Journal(tmp_path, KEY).scores(NAME, "other") is None


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
    plain, cut = Recipe(1, 2), Recipe(1, 2).branched(Cut(0.5, 0.7, 3, 4))
    whats = [{}, {"sigma": 0.5}, {"sigma": 0.5000000000000001}, {"draft_steps": 5}, {"draft_steps": 5, "sigma": 0.5}]
    names = [entry_name(recipe, what) for recipe in (plain, cut, Recipe(2, 1), Recipe(GIVEN, 2)) for what in whats]
    assert len(set(names)) == 20 and all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in names)
    assert entry_name(plain, {}, "a noise") == entry_name(plain, {})
    assert entry_name(Recipe(GIVEN, 2), {}, "a noise") != entry_name(Recipe(GIVEN, 2), {})


def test_scores_are_recalled_exactly_and_failures_asked_again(tmp_path):
    book = ScoreBook(Journal(tmp_path, KEY), "by", ["clip", "style"])
    row = torch.tensor([1 / 3, float("nan")])
    book.put(Recipe(1, 1), {"sigma": 0.5}, row.tolist())
    book.put(Recipe(1, 1), {}, row.tolist())
    book.put(Recipe(2, 2), {}, [0.1, -1e30])
    got = book.get(Recipe(1, 1), {"sigma": 0.5})
    assert got[0] == row[0] and got[1].isnan() and got.dtype == torch.float32
    assert book.get(Recipe(1, 1), {}) is None
    assert torch.equal(book.get(Recipe(2, 2), {}), torch.tensor([0.1, -1e30]))
    for by, names in (("someone else", ["clip", "style"]), ("by", ["clip"])):
        assert ScoreBook(Journal(tmp_path, KEY), by, names).get(Recipe(2, 2), {}) is None


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
