"""What a person chose is not asked again: the journal answers."""

from __future__ import annotations

import pytest
import torch

pytestmark = pytest.mark.comfy

from searching import parts

from noise_search.nodes.store.recorded_answers import RememberingAsker
from noise_search.search.journal.journal import Journal
from noise_search.verifiers.human.questions import Absent, Answer, Question

assert parts  # boots ComfyUI first
PICTURES = tuple(torch.rand(3, 1, 4, 4, 3))
KEY = "0" * 32


class Scripted:
    """Gives its answers one after another, and counts."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def ask(self, question, finishing):
        self.asked.append(question.candidates)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def question(*candidates):
    return Question(candidates, PICTURES[: len(candidates)], best=candidates[0])


def asker(folder, *answers):
    return RememberingAsker(Scripted(*answers), Journal(folder, KEY), lambda index: f"{index:032x}")


@pytest.mark.parametrize("ranking", [(5,), (9, 3, 5), ()], ids=["the best", "a ranking", "all bad"])
def test_an_answer_is_given_again(tmp_path, ranking):
    first = asker(tmp_path, Answer(ranking))
    assert first.ask(question(3, 5, 9), lambda: False) == Answer(ranking)
    first.journal.close()
    again = asker(tmp_path)
    assert again.ask(question(9, 3, 5), lambda: False) == Answer(ranking)  # in whatever order they are shown
    assert again.asker.asked == []
    again.asker.answers.append(Answer((3,)))
    assert again.ask(question(3, 5), lambda: False) == Answer((3,))  # other pictures are another question
    assert again.asker.asked == [(3, 5)]


def test_an_answer_is_seen_onto_the_disk_at_once(tmp_path, monkeypatch):
    one, synced = asker(tmp_path, Answer((5,))), []
    monkeypatch.setattr("os.fsync", synced.append)
    one.ask(question(3, 5, 9), lambda: False)
    assert synced == [one.journal._file._handle]


def test_who_let_the_model_take_over_is_asked_again(tmp_path):
    one = asker(tmp_path, Answer(take_over=True), Answer((3,)))
    assert one.ask(question(3, 5), lambda: False).take_over
    assert one.ask(question(3, 5), lambda: False) == Answer((3,))


def test_nobody_there_is_no_answer(tmp_path):
    one = asker(tmp_path, Absent("gone"), Answer((5,)))
    with pytest.raises(Absent):
        one.ask(question(3, 5), lambda: False)
    assert one.ask(question(3, 5), lambda: False) == Answer((5,))
