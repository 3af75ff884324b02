"""Small pictures: how large they are, what they are called, and where they are found again."""

from __future__ import annotations

import io
import threading

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot

boot()

import numpy as np
import torch
from PIL import Image

from noise_search.nodes.store import thumbnails
from noise_search.nodes.store.thumbnails import AT_ONCE, BYTES, QUALITIES, SIDE, Thumbnails, jpeg, read
from noise_search.search.base.candidate import Candidate
from noise_search.search.noise.recipe import Recipe


def opened(data: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "JPEG" and picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("shape", "size"), [
    ((1024, 1024), (160, 160)), ((512, 1024), (80, 160)), ((1536, 1000), (160, 104)), ((160, 160), (160, 160)),
    ((4, 4), (4, 4)), ((1, 3000), (1, 160)), ((4000, 3), (160, 1)), ((161, 40), (160, 40)),
])  # fmt: skip
def test_sizes(shape, size):
    data = jpeg(noise(*shape, 3))
    assert len(data) <= BYTES and opened(data).shape == (*size, 3) and max(size) <= SIDE


def test_the_worst_picture_fits():
    data = jpeg(noise(SIDE, SIDE, 3).round())
    assert len(data) <= BYTES
    picture = Image.fromarray((noise(SIDE, SIDE, 3).round() * 255).byte().numpy())
    best = io.BytesIO()
    picture.save(best, "JPEG", quality=QUALITIES[0])
    assert best.tell() > BYTES  # so that the quality had to be lowered


def test_colors_stay():
    halves = torch.zeros(320, 320, 3)
    halves[:, :160, 0], halves[:, 160:, 2] = 1.0, 0.5
    pixels = opened(jpeg(halves))
    assert np.abs(pixels[40:120, 10:70].mean((0, 1)) - [255, 0, 0]).max() < 4
    assert np.abs(pixels[40:120, 90:150].mean((0, 1)) - [0, 0, 128]).max() < 4


def test_one_channel_is_gray_and_no_number_is_black():
    gray = torch.full((20, 20, 1), 0.5)
    assert np.abs(opened(jpeg(gray)) - 128).max() <= 2
    assert np.abs(opened(jpeg(torch.full((20, 20, 3), torch.nan)))).max() == 0


def test_of_a_video_the_first_frame_is_shown():
    frames = torch.cat([torch.ones(1, 32, 32, 3), torch.zeros(7, 32, 32, 3)])
    album = Thumbnails("0" * 32)
    album.add("a", frames)
    assert opened(album.get("a")).min() > 250


def test_names_say_what_is_shown():
    album, other = Thumbnails("0" * 32), Thumbnails("1" * 32)
    one, two = Candidate(1, Recipe(5, 5)), Candidate(2, Recipe(5, 6))
    whats = ({}, {"sigma": 0.5}, {"sigma": 0.25}, {"draft_steps": 5})
    names = [album.name_of(candidate, what) for candidate in (one, two) for what in whats]
    assert len(set(names)) == len(names)
    assert all(len(name) == 32 and set(name) <= set("0123456789abcdef") for name in names)
    assert names[0] == other.name_of(Candidate(7, Recipe(5, 5)), {})


def test_pictures_on_disk_are_found_again(tmp_path):
    folder = tmp_path / "journal" / "thumbs"
    first = Thumbnails("0" * 32, folder)
    first.add("ab", noise(1, 8, 8, 3))
    first.flush()
    assert [path.name for path in folder.iterdir()] == ["ab.jpg"]
    first.keep(set())
    again = Thumbnails("0" * 32, folder)
    assert again.has("ab") and not again.has("cd")
    assert again.get("ab") == first.get("ab") == read(folder, "ab") == jpeg(noise(8, 8, 3))
    assert again.get("cd") is None


def test_memory_is_let_go():
    album = Thumbnails("0" * 32)
    for name in ("a", "b"):
        album.add(name, noise(1, 8, 8, 3))
    album.keep({"b"})
    assert (album.has("a"), album.get("a"), album.has("b")) == (False, None, True)


def test_what_is_forgotten_is_not_shown(tmp_path):
    album = Thumbnails("0" * 32, tmp_path / "thumbs")
    album.add("a", noise(1, 8, 8, 3))
    album.flush()
    (tmp_path / "thumbs" / "a.jpg").unlink()
    assert album.get("a") is not None
    album.forget()
    assert not album.has("a") and album.get("a") is None


def test_what_cannot_be_read_is_no_picture(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "file").touch()
    assert read(tmp_path, "a") is None and read(tmp_path / "file", "a") is None


def test_a_full_disk_costs_no_picture(tmp_path, caplog):
    (tmp_path / "thumbs").touch()  # nothing can be written there
    album = Thumbnails("0" * 32, tmp_path / "thumbs")
    album.add("a", noise(1, 8, 8, 3))
    album.add("b", noise(1, 8, 8, 3))
    assert album.get("a") and album.get("b")
    assert [record.message.startswith("thumbnails are no longer written to") for record in caplog.records] == [True]


@pytest.fixture
def held(monkeypatch):
    """Files are made only once the event is set; gives the threads that made some, and the event."""
    threads, may, encode = [], threading.Event(), thumbnails.encoded

    def encoded(pixels):
        assert may.wait(60)
        threads.append(threading.current_thread())
        return encode(pixels)

    monkeypatch.setattr(thumbnails, "encoded", encoded)
    yield threads, may
    may.set()


def test_files_are_made_in_another_thread_and_are_waited_for(tmp_path, held):
    threads, may = held
    picture = noise(1, 8, 8, 3)
    album = Thumbnails("0" * 32, tmp_path / "thumbs")
    written = []
    album.grown = written.append
    album.add("a", picture)
    assert album.has("a") and threads == [] and not (tmp_path / "thumbs").exists()
    picture.zero_()  # it was made small before
    waiting = threading.Timer(0.05, may.set)
    waiting.start()
    found = album.get("a")
    want = jpeg(noise(1, 8, 8, 3)[0])
    assert found == want == read(tmp_path / "thumbs", "a") and written == [len(want)]
    assert threading.current_thread() is not threads[0]
    waiting.join()


def test_so_many_wait_at_once(held):
    """One more is added only when there is room again."""
    _, may = held
    album, added = Thumbnails("0" * 32), []

    def add():
        for number in range(AT_ONCE + 1):
            album.add(str(number), noise(1, 8, 8, 3))
            added.append(number)

    adding = threading.Thread(target=add)
    adding.start()
    while len(added) < AT_ONCE:
        adding.join(0.01)
    adding.join(0.1)
    assert len(added) == AT_ONCE and adding.is_alive()
    may.set()
    adding.join(60)
    album.flush()
    assert len(added) == AT_ONCE + 1 and all(album.get(str(number)) for number in added)


def test_what_is_let_go_while_it_is_made_is_on_disk_only(tmp_path, held):
    _, may = held
    album = Thumbnails("0" * 32, tmp_path)
    for name in ("a", "b"):
        album.add(name, noise(1, 8, 8, 3))
    album.keep({"b"})
    may.set()
    album.flush()
    assert list(album._files) == ["b"] and album._coming == {} and album._let_go == set()
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_picture_that_cannot_be_made_is_told(monkeypatch):
    def broken(pixels):
        raise MemoryError("no room for a picture")

    monkeypatch.setattr(thumbnails, "encoded", broken)
    album = Thumbnails("0" * 32)
    for name in ("a", "b"):
        album.add(name, noise(1, 8, 8, 3))
    album.flush()
    assert album.problems == ["a small picture could not be made: MemoryError: no room for a picture"]
    assert album.get("a") is None and not album.has("a")
    monkeypatch.undo()
    album.add("a", noise(1, 8, 8, 3))
    assert album.get("a") == jpeg(noise(8, 8, 3))
