"""A person's sitting: what is shown together, what answers do, and who answers when nobody is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from persons import Person, Scripted

from noise_search.verifiers.common.base import PeopleVerifier, Verifier
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.composite.ensemble import Ensemble
from noise_search.verifiers.human.choices import ASSISTANT, MODEL, YOU, Choice, bradley_terry
from noise_search.verifiers.human.comparison_session import ComparisonSession
from noise_search.verifiers.human.human import HumanVerifier
from noise_search.verifiers.human.preference_model import LEAST_CHOICES
from noise_search.verifiers.human.questions import BY_MODEL, ERROR, STOP, Absent, Answer, Ended
from noise_search.verifiers.measures.guidance_gap import GuidanceGap
from noise_search.verifiers.measures.statistics import ImageStatistics


def pictures(count: int, seed: int = 0) -> list[torch.Tensor]:
    colors = torch.rand(count, 1, 2, 2, 3, generator=torch.Generator().manual_seed(seed))
    return list(colors.repeat_interleave(4, 2).repeat_interleave(4, 3))


def redness(picture: torch.Tensor) -> float:
    return float(picture[..., 0].mean() - picture[..., 1].mean())


SHOWN = pictures(64)


@dataclass
class Redness:
    """A verifier with that taste."""

    name: str = "redness"
    score_range: tuple[float, float] = (-1.0, 1.0)
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = True
    seen: list[int] = field(default_factory=list)

    def score(self, images: torch.Tensor, latents: Any = None) -> torch.Tensor:
        self.seen.append(len(images))
        return images[..., 0].mean((1, 2)) - images[..., 1].mean((1, 2))


def sitting_of(asker: Any, **settings: Any) -> ComparisonSession:
    sitting = HumanVerifier(asker, **settings).begin()
    sitting.recall = SHOWN.__getitem__
    return sitting


def score(sitting: ComparisonSession, candidates: Sequence[int]) -> torch.Tensor:
    return sitting.score_set(candidates, [SHOWN[index] for index in candidates])


def best_of(sitting: ComparisonSession) -> int:
    strengths = sitting.revised()
    return max(strengths, key=strengths.get)


def test_sets_hold_the_best_so_far_and_fit():
    person = Person(redness)
    sitting = sitting_of(person, set_size=4)
    for wave in (range(0, 8), range(8, 13), range(13, 14)):
        score(sitting, wave)
    sets = [question.candidates for question in person.asked]
    assert [len(some) for some in sets] == [
        3,
        4,
        3,
        3,
        4,
        2,
    ]  # 8 new: 3, 3 and 2; 5 new: 2 and 3; 1 new; each but the first with the best
    best = None
    for question in person.asked:
        assert question.best == best
        assert best is None or question.candidates[0] == best
        best = max(question.candidates, key=lambda index: redness(SHOWN[index]))
    assert best_of(sitting) == best == max(range(14), key=lambda index: redness(SHOWN[index]))


@pytest.mark.parametrize(("size", "new"), [(2, 5), (3, 7), (16, 30), (4, 1), (4, 4), (4, 5)])
def test_every_candidate_is_shown_once_as_new(size, new):
    person = Person(redness)
    sitting = sitting_of(person, set_size=size)
    score(sitting, range(new))
    score(sitting, range(new, 2 * new))
    first_seen = []
    for question in person.asked:
        assert 2 <= len(question.candidates) <= size
        first_seen += [index for index in question.candidates if index not in first_seen]
    assert sorted(first_seen) == list(range(2 * new))
    least = math.ceil(max(new - 1, 0) / (size - 1)) + math.ceil(new / (size - 1))
    assert len(person.asked) == least


def test_one_alone_is_not_asked_about():
    person = Person(redness)
    sitting = sitting_of(person)
    assert score(sitting, [0]).tolist() == [0.0]
    assert person.asked == [] and sitting.choices == []
    score(sitting, [1])
    assert person.asked[0].candidates == (0, 1) and person.asked[0].best == 0


def test_strengths_are_those_of_all_choices_and_earlier_ones_change():
    person = Person(redness)
    sitting = sitting_of(person, set_size=3)
    first = score(sitting, [0, 1, 2]).tolist()
    before = sitting.revised()
    assert first == pytest.approx([before[0], before[1], before[2]])
    score(sitting, [3, 4])
    want = bradley_terry([pair for choice in sitting.choices for pair in choice.comparisons])
    assert sitting.revised() == pytest.approx(want)
    assert sitting.revised()[best_of(sitting)] != before.get(best_of(sitting))


def test_all_bad_leaves_the_best_where_it_is():
    sitting = sitting_of(Scripted([Answer((2,)), Answer(())]))
    score(sitting, range(4))
    strengths = sitting.revised()
    score(sitting, range(4, 7))
    after = sitting.revised()
    assert after[2] > strengths[2] and max(after, key=after.get) == 2
    assert all(after[index] < after[2] for index in (4, 5, 6))
    assert -1 not in after


def test_a_candidate_that_is_gone_is_not_shown_again():
    person = Person(redness)
    sitting = sitting_of(person, set_size=3)
    score(sitting, [0, 1, 2])
    gone = best_of(sitting)
    sitting.recall = lambda index: None if index == gone else SHOWN[index]
    score(sitting, [3, 4])
    assert gone not in person.asked[1].candidates
    assert person.asked[1].best in {0, 1, 2} - {gone}


def test_the_question_says_how_far_the_model_is():
    person = Person(redness)
    sitting = sitting_of(person, timeout=9.0)
    score(sitting, range(40))
    assert [question.asked for question in person.asked] == list(range(13))
    assert [question.model_ready for question in person.asked] == [k >= LEAST_CHOICES for k in range(13)]
    assert person.asked[0].accuracy == "" and person.asked[-1].accuracy.startswith("it foretold ")
    assert person.asked[0].timeout == 9.0


def test_the_model_takes_over_when_it_is_told_to():
    person = Person(redness, ranks=True)
    sitting = sitting_of(person)
    score(sitting, range(40))
    said = len(person.asked)
    sitting.verifier.asker.ask = lambda question, finishing: Answer(take_over=True)
    score(sitting, range(40, 61))
    assert sitting.taken_over and len(person.asked) == said
    assert [choice.by for choice in sitting.choices] == [YOU] * said + [MODEL] * 7
    assert all(len(choice.ranking) == len(choice.shown) for choice in sitting.choices)
    hits = sum(
        choice.ranking[0] == max(choice.shown, key=lambda index: redness(SHOWN[index])) for choice in sitting.choices[said:]
    )
    assert hits >= 5  # of 7
    assert sitting.taste.checked == said  # its own choices taught it nothing
    assert redness(SHOWN[best_of(sitting)]) >= sorted(map(redness, SHOWN))[-4]


def test_absent_with_a_model_that_is_ready():
    person = Person(redness, patience=6)
    sitting = sitting_of(person, when_absent=BY_MODEL)
    score(sitting, range(30))
    assert [choice.by for choice in sitting.choices] == [YOU] * 6 + [MODEL] * 4
    assert len(person.asked) == 10 and not sitting.taken_over  # who comes back is asked again
    assert sitting.stopped == ""


def test_absent_with_an_assistant_in_place_of_a_model():
    person, assistant = Person(redness, patience=1), Redness()
    sitting = sitting_of(person, assistant=assistant)
    scores = score(sitting, range(10))
    assert [choice.by for choice in sitting.choices] == [YOU, ASSISTANT, ASSISTANT]
    assert not scores.isnan().any()
    for choice in sitting.choices[1:]:
        assert list(choice.ranking) == sorted(choice.shown, key=lambda index: -redness(SHOWN[index]))


def test_absent_with_neither_ends_the_search_with_the_best():
    sitting = sitting_of(Person(redness, patience=1), when_absent=BY_MODEL)
    scores = score(sitting, range(10))
    assert scores.isnan().tolist() == [False] * 4 + [True] * 6
    assert sitting.stopped == (
        "nobody answered in 20 s, the model of your choices has 1 of the 5 picks it needs, and no 'assistant' is connected: "
        "the search ended with the best so far"
    )
    assert score(sitting, [11]).isnan().all() and len(sitting.verifier.asker.asked) == 2  # nothing more is asked


def test_absent_and_to_stop_with_the_best():
    sitting = sitting_of(Person(redness, patience=0, why="no page is open"), when_absent=STOP, assistant=Redness())
    assert score(sitting, range(4)).isnan().all()
    assert sitting.stopped == "no page is open: the search ended with the best so far"
    assert sitting.revised() == {}


def test_absent_as_an_error():
    sitting = sitting_of(Person(redness, patience=0, why="no page is open"), when_absent=ERROR)
    with pytest.raises(ValueError, match="Human Verifier: no page is open, and 'when_absent' is 'error'. Open ComfyUI's page"):
        score(sitting, range(4))


def test_ending_the_search_is_no_absence():
    """Not even where nobody being there is an error."""
    sitting = sitting_of(Scripted([Ended("you ended it")]), when_absent=ERROR, assistant=Redness())
    assert score(sitting, range(4)).isnan().all()
    assert sitting.stopped == "you ended it" and sitting.choices == []


def test_take_over_before_the_model_is_ready():
    sitting = sitting_of(Scripted([Answer(take_over=True)]), assistant=Redness())
    score(sitting, range(4))
    assert [choice.by for choice in sitting.choices] == [ASSISTANT]


def test_an_ensemble_may_assist():
    parts = (Redness(), ImageStatistics())
    sitting = sitting_of(Person(redness, patience=0), assistant=Ensemble(parts))
    score(sitting, range(4))
    want = Ensemble(parts).score(torch.cat(SHOWN[:4])).tolist()
    assert list(sitting.choices[0].ranking) == sorted(range(4), key=lambda index: -want[index])


def test_an_assistant_teaches_the_model():
    """With the taste itself as a feature, the model is right more often than by its own features."""
    alone, helped = sitting_of(Person(redness)), sitting_of(Person(redness), assistant=Redness())
    for sitting in (alone, helped):
        score(sitting, range(61))
    assert helped.taste.checked == alone.taste.checked == 20
    assert helped.taste.hits >= 19 > alone.taste.hits


def test_an_encoder_adds_its_features():
    class Encoder:
        """Sees redness only."""

        patcher = "its patcher"

        def encode_image(self, images: torch.Tensor, crop: bool) -> dict[str, torch.Tensor]:
            red = images[..., 0].mean((1, 2)) - images[..., 1].mean((1, 2))
            return {"image_embeds": torch.stack([red, torch.ones_like(red)], 1)}

    verifier = HumanVerifier(Person(redness), clip_vision=Encoder(), assistant=Redness())
    assert verifier.get_models() == ["its patcher"]
    sitting = verifier.begin()
    sitting.recall = SHOWN.__getitem__
    score(sitting, range(61))
    assert sitting.taste.weights.shape == (28 + 2 + 1,)
    assert sitting.taste.hits >= 19


def test_protocols():
    verifier = HumanVerifier(Scripted([]))
    assert isinstance(verifier, PeopleVerifier) and isinstance(verifier, Verifier)
    assert not isinstance(ImageStatistics(), PeopleVerifier)


def test_a_batch_of_its_own():
    person = Person(redness, ranks=True)
    scores = HumanVerifier(person, set_size=16).score(torch.cat(SHOWN[:10]))
    assert scores.argsort(descending=True).tolist() == sorted(range(10), key=lambda index: -redness(SHOWN[index]))
    assert HumanVerifier(Person(redness, patience=0), when_absent=STOP).score(torch.cat(SHOWN[:3])).isnan().all()


def test_videos_are_shown_whole():
    person = Person(lambda picture: float(picture.mean()))
    sitting = HumanVerifier(person, assistant=Redness()).begin()
    sitting.score_set([0, 1], [torch.rand(5, 8, 8, 3), torch.rand(5, 8, 8, 3)])
    assert [picture.shape[0] for picture in person.asked[0].pictures] == [5, 5]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"set_size": 1}, "'set_size' is 1; from 2 to 16"),
        ({"set_size": 17}, "'set_size' is 17"),
        ({"timeout": -1.0}, "'timeout' is -1.0"),
        ({"timeout": math.nan}, "'timeout' is nan"),
        ({"when_absent": "guess"}, "'when_absent' is 'guess'; choose one of model of your choices, stop"),
        ({"assistant": GuidanceGap()}, "'assistant' holds"),
        ({"assistant": Cascade(Redness(), Redness("second"))}, "'assistant' holds"),
        ({"assistant": Ensemble((Redness(), HumanVerifier(Scripted([]))))}, "'assistant' holds 'your choice'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, what):
    with pytest.raises(ValueError, match=f"Human Verifier: input {what}"):
        HumanVerifier(Scripted([]), **settings)


def test_absence_says_why():
    assert str(Absent("no page is open")) == "no page is open" and issubclass(Ended, Absent)
    assert Choice((0, 1), (0,)).by == YOU
