"""The cascade by itself: its settings, and a batch scored as Score Images does."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from noise_search.verifiers.common.base import Verifier, VerifierCascade
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.measures.statistics import ImageStatistics

NAN = math.nan


@dataclass
class Channel:
    """Scores an image by the mean of one channel; below 0 it gives no number. Remembers what it was given."""

    channel: int
    name: str
    prompt: str = ""
    needs_prompt: bool = False
    trusts_previews: bool = True
    score_range: tuple[float, float] = (0.0, 1.0)
    seen: list = field(default_factory=list)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        self.seen.append((len(images), None if latents is None else latents[:, 0].tolist()))
        scores = images[..., self.channel].mean((1, 2))
        return torch.where(scores == 0, torch.nan, scores)


CHEAP, DEAR = Channel(0, "cheap"), Channel(1, "dear")


def pixels(*colors: tuple[float, float]) -> Tensor:
    return torch.tensor([[red, green, 0.0] for red, green in colors]).view(-1, 1, 1, 3).expand(-1, 4, 4, 3)


def scores(count: int, *colors: tuple[float, float]) -> list[float]:
    return [round(value, 4) for value in Cascade(CHEAP, DEAR, count).score(pixels(*colors)).tolist()]


def test_finalists_by_the_dear_one_the_others_below() -> None:
    assert scores(2, (0.5, 0.2), (0.9, 0.3), (0.1, 0.9), (0.3, 0.8)) == [0.2, 0.3, -1.8, -0.8]
    assert scores(2, (0.5, 0.2), (0.9, 0.3), (0.1, 0.9), (0.1, 0.8)) == [0.2, 0.3, -1.3, -1.3]
    assert scores(9, (0.5, 0.2), (0.9, 0.3)) == [0.2, 0.3]


def test_of_equal_ones_the_first_are_finalists() -> None:
    assert scores(1, (0.5, 0.2), (0.5, 0.9)) == [0.2, -0.8]


def test_what_gets_no_number() -> None:
    assert scores(2, (0.9, 0.0), (0.8, 0.4), (0.1, 0.9)) == [-0.6, 0.4, -1.6]
    assert scores(1, (0.9, 0.0), (0.8, 0.4)) == [-1.0, -2.0]
    found = scores(1, (0.0, 0.9), (0.8, 0.4))
    assert math.isnan(found[0]) and found[1] == 0.4


def test_only_finalists_are_shown_with_their_latents() -> None:
    cheap, dear = Channel(0, "cheap"), Channel(1, "dear")
    latents = torch.arange(3.0)[:, None]
    Cascade(cheap, dear, 2).score(pixels((0.1, 0.1), (0.2, 0.1), (0.3, 0.1)), latents=latents)
    assert cheap.seen == [(3, [0, 1, 2])]
    assert dear.seen == [(2, [2, 1])]


@pytest.mark.parametrize(
    ("count", "share", "of", "finalists"),
    [(8, 0.5, 100, 8), (8, 0.5, 3, 3), (0, 0.25, 16, 4), (0, 0.25, 17, 5), (0, 0.1, 30, 3), (0, 0.01, 1, 1), (0, 1.0, 7, 7)],
)
def test_how_many_finalists(count: int, share: float, of: int, finalists: int) -> None:
    assert Cascade(CHEAP, DEAR, count, share).finalists_among(of) == finalists


def test_what_it_says_of_its_two() -> None:
    parts = (Channel(0, "a", "a cat", True, trusts_previews=True), Channel(1, "b", "a dog", True, trusts_previews=False))
    both = Cascade(*parts)
    assert (both.name, both.prompt, both.needs_prompt) == ("a, then b", "a cat | a dog", True)
    assert both.trusts_previews and not Cascade(*parts[::-1]).trusts_previews
    assert isinstance(both, Verifier) and isinstance(both, VerifierCascade)
    assert not isinstance(ImageStatistics(), VerifierCascade)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"count": -1}, "input 'finalists' is -1; set how many, or 0"),
        ({"share": 0.0}, "input 'share' is 0.0; it must be above 0"),
        ({"share": NAN}, "input 'share' is nan"),
        ({"cheap": Cascade(CHEAP, DEAR)}, "input 'cheap' is a cascade itself"),
        ({"expensive": Cascade(CHEAP, DEAR)}, "input 'expensive' is a cascade itself"),
    ],
)
def test_bad_settings(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Cascade(**{"cheap": CHEAP, "expensive": DEAR, **settings})
