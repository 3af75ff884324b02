"""Where journals lie: their room, what goes first, forgetting, and names that lead elsewhere."""

from __future__ import annotations

import os

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import folder_paths
from remembered import keep_journals, prompt_for, remembered
from searching import parts

from noise_search.nodes.store import fingerprints, journals
from noise_search.nodes.store.search_store import READ_WHOLE
from noise_search.search.journal.journal import STATES, THUMBS, Journal, entry_name
from noise_search.search.journal.lines import line_of
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.noise.recipe import Recipe

MIB = 1 << 20


@pytest.fixture
def root(tmp_path, monkeypatch):
    return keep_journals(tmp_path, monkeypatch, "3")


def old(root, digit, used, scores, size=MIB // 2):
    """A journal that was used last at a time, with a state for each score."""
    folder = root / (digit * 32)
    journal = Journal(folder, digit * 32)
    for i, score in enumerate(scores):
        name = f"{i:032x}"
        journal.add_run(name, {"what": {}, "calls": 1, "levels": []}, bytes(size))
        journal.add_scores(name, "by", {"part": score})
    journal.close()
    os.utime(folder / "journal.jsonl", (used, used))
    return folder


def states(folder):
    return sorted(int(path.stem, 16) for path in (folder / STATES).iterdir())


def test_within_the_room_nothing_goes(root):
    folders = [old(root, "1", 100, [1, 2]), old(root, "2", 200, [1, 2])]
    journals.make_room()
    assert [states(folder) for folder in folders] == [[0, 1], [0, 1]]


def test_the_worst_of_the_oldest_go_first(root):
    first, second = old(root, "1", 100, [0.3, 0.1, 0.2]), old(root, "2", 200, [1, 2, 3, 4])
    journals.make_room()
    assert states(first) == [0] and states(second) == [0, 1, 2, 3]  # 3.5 MiB, and the lines
    assert Journal(first, "1" * 32).run(f"{1:032x}") is not None  # what is known of it is still there


def test_whole_journals_go_when_their_states_are_gone(root, monkeypatch):
    first, second = old(root, "1", 100, [1]), old(root, "2", 200, [1])
    for folder in (first, second):
        (folder / THUMBS).mkdir()
        (folder / THUMBS / "a.jpg").write_bytes(bytes(2 * MIB))
    journals.make_room()
    assert not first.exists() and states(second) == []


def test_a_search_that_runs_keeps_its_best(root):
    journal = journals.open_journal("3" * 32)
    for i in range(20):
        journal.add_run(f"{i:032x}", {"what": {}, "calls": 1, "levels": []}, bytes(MIB // 4))
        journal.add_scores(f"{i:032x}", "by", {"part": float(i)})
    assert len(states(journal.folder)) <= journals.KEPT + 1  # it did not wait for the end
    journals.make_room()
    assert states(journal.folder) == list(range(20 - journals.KEPT, 20))
    other = old(root, "1", 100, [1, 2])
    journals.close_journal(journal)
    assert not other.exists() and journal.folder.exists()


def test_forgetting(root):
    folder = old(root, "a", 100, [1])
    running = journals.open_journal("b" * 32)
    with pytest.raises(ValueError, match="this search is running"):
        journals.forget("b" * 32)
    journals.close_journal(running)
    assert journals.forget("a" * 32) and not folder.exists()
    assert not journals.forget("a" * 32)
    assert (root / ("b" * 32)).exists() and journals.forget("b" * 32)


@pytest.mark.parametrize(
    "place", ["", "..", "../" + "a" * 29, "A" * 32, "a" * 31, "a" * 33, "a" * 32 + "\n", "/" + "a" * 31, None, 7]
)
def test_a_place_that_is_none_is_refused(root, place):
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        journals.forget(place)


def test_a_link_is_not_followed(root, tmp_path):
    elsewhere = old(tmp_path / "elsewhere", "c", 100, [1, 2], 4 * MIB)
    root.mkdir()
    (root / ("c" * 32)).symlink_to(elsewhere, target_is_directory=True)
    journals.make_room()
    assert journals.forget("c" * 32) and not (root / ("c" * 32)).is_symlink()  # the link is forgotten
    assert states(elsewhere) == [0, 1] and not journals.forget("c" * 32)


def test_what_the_room_may_be(root, monkeypatch):
    for said, want in (("", 2048 * MIB), ("7", 7 * MIB), (" 0 ", 0)):
        monkeypatch.setenv("NOISE_SEARCH_JOURNAL_MB", said)
        assert journals.room() == want
    for said in ("-1", "many", "1.5"):
        monkeypatch.setenv("NOISE_SEARCH_JOURNAL_MB", said)
        with pytest.raises(ValueError, match="NOISE_SEARCH_JOURNAL_MB.*whole number of MiB"):
            journals.room()


def test_no_room_is_no_journal(root, monkeypatch):
    monkeypatch.setenv("NOISE_SEARCH_JOURNAL_MB", "0")
    assert remembered(parts("eps"), 3).report["recalled"] is None and not root.exists()


def test_a_folder_that_cannot_be_written_is_said(root):
    root.write_text("in the way")
    report = remembered(parts("eps"), 3).report
    (note,) = [note for note in report["notes"] if note.startswith("resume:")]
    assert "is not written to disk" in note and report["recalled"] is None


def test_pruned_candidates_are_rendered_again(root):
    graph = parts("eps")
    want = remembered(graph, 3, method=RandomSearch())
    (folder,) = root.iterdir()
    best = want.report["best"]["recipe"]
    for path in sorted((folder / STATES).iterdir())[:2]:
        path.unlink()
    again = remembered(graph, 3, method=RandomSearch())
    assert again.report["recalled"]["candidates"] == 2 and again.report["best"]["recipe"] == best
    assert [note for note in again.report["notes"] if "missing or damaged" in note]


def test_recipes_are_found_by_name(root):
    report = remembered(parts("eps"), 3, method=RandomSearch()).report
    (folder,) = root.iterdir()
    for candidate in report["candidates"]:
        recipe = Recipe.from_json(candidate["recipe"])
        assert journals.recipe_of(folder.name, entry_name(recipe, {})) == recipe.to_json()
    assert journals.recipe_of(folder.name, "0" * 32) is journals.recipe_of("0" * 32, "0" * 32) is None


@pytest.mark.parametrize(("older", "large", "said"), [(True, True, True), (False, True, False), (True, False, False)])
def test_one_note_says_that_large_files_are_known_otherwise_than_before(root, tmp_path, monkeypatch, older, large, said):
    monkeypatch.setattr(fingerprints, "SETTLED", -(10**12))
    monkeypatch.setattr(fingerprints, "_known", {})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae", ([str(tmp_path / "vae")], {".safetensors"}))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "v.safetensors").write_bytes(bytes(fingerprints.LARGE + large))
    if older:
        old(root, "1", 100, [1], 10)
    notes = [remembered(parts("eps"), 3, prompt=prompt_for("v.safetensors")).report["notes"] for _ in range(2)]
    assert [READ_WHOLE in one for one in notes] == [said, False]
    assert "files above 4 MiB" in READ_WHOLE and (root / "files.json").exists() == large


def test_a_journal_that_cannot_be_opened_whole_is_not_open_for_ever(root, monkeypatch):
    """Whatever is raised: it can be forgotten afterwards, and opened."""

    def broken():
        raise KeyError("what")

    with monkeypatch.context() as patch:
        patch.setattr(journals, "make_room", broken)
        with pytest.raises(KeyError):
            journals.open_journal("d" * 32)
    journal = journals.open_journal("d" * 32)
    with monkeypatch.context() as patch:
        patch.setattr(journals, "make_room", broken)
        with pytest.raises(KeyError):
            journals.close_journal(journal)
    assert journals._open == [] and journals.forget("d" * 32)


def test_lines_of_another_version_hinder_no_search(root):
    want = remembered(parts("eps"), 3, method=RandomSearch()).report
    (folder,) = root.iterdir()
    with (folder / "journal.jsonl").open("ab") as file:
        for entry in ({"kind": "run"}, {"kind": "scores"}, {"kind": "run", "name": "0" * 32, "what": {}, "calls": 1, "levels": [],
                      "recipe": {"noise_search": 99}}):  # fmt: skip
            file.write(line_of(entry))
    again = remembered(parts("eps"), 3, method=RandomSearch()).report
    assert again["recalled"]["candidates"] == 4 and again["order"] == want["order"]
    assert [note for note in again["notes"] if "2 lines are damaged or of another version" in note]
    assert journals.recipe_of(folder.name, "0" * 32) is None and journals.forget(folder.name)
