"""Rules of the object check: values computed by hand, for boxes made by hand; no model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from noise_search.verifiers.content.object_check import ObjectCheck
from noise_search.verifiers.content.object_rules import (
    MAX_BOXES,
    Check,
    Thing,
    belief,
    check_value,
    count_value,
    direction,
    distinct,
    overlap,
    parse,
    relation_value,
    singular,
)

CAT, DOG, RED_CUP = Thing("cat"), Thing("dog"), Thing("cup", "red")


@pytest.mark.parametrize(
    ("line", "check"),
    [
        ("a cat", Check((CAT,))),
        ("The Polar  Bear.", Check((Thing("polar bear"),))),
        ("cats", Check((Thing("cats"),))),
        ("one cat", Check((CAT,), 1)),
        ("2 cats", Check((CAT,), 2)),
        ("three red cups", Check((RED_CUP,), 3)),
        ("no dog", Check((DOG,), 0)),
        ("0 dogs", Check((DOG,), 0)),
        ("two people", Check((Thing("person"),), 2)),
        ("a red cup", Check((RED_CUP,))),
        ("a gray cat", Check((Thing("cat", "grey"),))),
        ("an orange", Check((Thing("orange"),))),
        ("a white-wine glass", Check((Thing("white-wine glass"),))),
        ("a cat left of a dog", Check((CAT, DOG), relation="left of")),
        ("the cat is to the right of the red cup", Check((CAT, RED_CUP), relation="right of")),
        ("a cat on the left of dog", Check((CAT, DOG), relation="left of")),
        ("cat above dog", Check((CAT, DOG), relation="above")),
        ("a red cup below a cat", Check((RED_CUP, CAT), relation="below")),
    ],
)
def test_lines_are_read(line: str, check: Check) -> None:
    assert parse(f"\n {line} \n") == (check,)


def test_lines_keep_their_order() -> None:
    assert parse("a cat\n\n2 dogs") == (Check((CAT,)), Check((DOG,), 2))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a cat, a dog", "several"),
        ("a cat and a dog", "several"),
        ("a cat. a dog", "several"),
        ("2 cats left of a dog", "a number and a relation"),
        ("a cat above no dog", "a number and a relation"),
        ("a cat above a dog above a cup", "more than one relation"),
        ("a", "does not name a thing"),
        ("two", "does not name a thing"),
        ("a cat left of", "does not name a thing"),
        ("above a dog", "does not name a thing"),
        ("21 cats", "more than 20"),
    ],
)
def test_other_lines_are_refused(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"the line {line!r} .*{says}"):
        parse(f"a cup\n{line}")


@pytest.mark.parametrize(
    ("plural", "word"),
    [
        ("cats", "cat"), ("boxes", "box"), ("buses", "bus"), ("glasses", "glasses"), ("cherries", "cherry"), ("benches", "bench"),
        ("horses", "horse"), ("tomatoes", "tomato"), ("shoes", "shoe"), ("sheep", "sheep"), ("dresses", "dress"),
        ("children", "child"), ("cactus", "cactus"), ("knives", "knife"), ("brushes", "brush"), ("vases", "vase"),
    ],
)  # fmt: skip
def test_singulars(plural: str, word: str) -> None:
    assert singular(plural) == word


def test_belief_is_the_odds_in_units_of_those_of_the_threshold() -> None:
    s = torch.tensor([0.0, 0.02, 0.1, 0.25, 0.5, 1.0])
    # odds s / (1 - s) times 9 (the inverse of 0.1 / 0.9), as a probability
    expected = [0, 9 * 0.02 / (9 * 0.02 + 0.98), 0.5, 9 / (9 + 3), 0.9, 1]
    torch.testing.assert_close(belief(s, 0.1), torch.tensor(expected))


def test_overlap() -> None:
    a = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    b = torch.tensor([[5.0, 0, 15, 10], [0, 0, 10, 10], [10, 0, 20, 10]])
    torch.testing.assert_close(overlap(a, b), torch.tensor([[50 / 150, 1, 0], [0, 0, 0]]))


def test_boxes_of_one_thing_are_taken_once() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 0, 60, 10], [1, 0, 11, 10], [0, 0, 5, 10]])
    # the first and the third overlap by 9/11; the last covers half of the third (4/11) and of the first (1/2)
    assert distinct(boxes, torch.tensor([0.5, 0.3, 0.9, 0.2])).tolist() == [2, 1, 3]
    assert distinct(boxes, torch.tensor([0.9, 0.3, 0.5, 0.2])).tolist() == [0, 1, 3]


def test_boxes_that_are_kept_are_those_of_torchvision() -> None:
    from torchvision.ops import nms

    generator = torch.Generator().manual_seed(0)
    corners = 20 * torch.rand(300, 2, generator=generator)
    boxes = torch.cat([corners, corners + 2 + 8 * torch.rand(300, 2, generator=generator)], 1)
    scores = torch.rand(300, generator=generator)
    expected = nms(boxes, scores, 0.5)
    assert len(expected) > MAX_BOXES
    assert torch.equal(distinct(boxes, scores), expected[:MAX_BOXES])


@pytest.mark.parametrize(
    ("q", "count", "value"),
    [
        ([], 2, 0.0),
        ([1.0, 1.0], 2, 1.0),
        ([1.0, 1.0], 3, 2 / 3),
        ([1.0, 1.0, 1.0, 1.0], 3, 3 / 4),
        ([0.2, 1.0, 0.5, 0.1], 2, 1.5 / 2),  # what does not reach the threshold is not too many
        ([1.0, 0.75], 1, 1 / 1.5),
        ([0.9, 0.3], 0, 0.1),
        ([], 0, 1.0),
    ],
)
def test_count(q: list[float], count: int, value: float) -> None:
    assert count_value(torch.tensor(q), count) == pytest.approx(value)


def test_count_rises_with_what_is_wanted_and_falls_with_what_is_not() -> None:
    values = [count_value(torch.ones(n), 3) for n in range(7)]
    assert values[3] == 1 and values[:4] == sorted(values[:4]) and values[3:] == sorted(values[3:], reverse=True)


def geneval(a: list[float], b: list[float]) -> set[str]:
    """GenEval's rule (arXiv 2310.11513, section 3), written down anew with plain numbers."""
    relations, d = set(), []
    offset = [(a[k] + a[k + 2] - b[k] - b[k + 2]) / 2 for k in (0, 1)]
    for k in (0, 1):
        beyond = abs(offset[k]) - 0.1 * (a[k + 2] - a[k] + b[k + 2] - b[k])
        d.append(max(beyond, 0) * (1 if offset[k] > 0 else -1) / max(1e-9, (offset[0] ** 2 + offset[1] ** 2) ** 0.5))
    for name, size in (("left of", -d[0]), ("right of", d[0]), ("above", -d[1]), ("below", d[1])):
        if size > 0.5:
            relations.add(name)
    return relations


def test_direction_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[30.0, 40, 50, 60]])
    # centers (5, 5) and (40, 50); sizes 10 and 20: 3 off both axes
    length = (35**2 + 45**2) ** 0.5
    torch.testing.assert_close(direction(a, b), torch.tensor([[[-32 / length, -42 / length]]]))
    assert torch.equal(direction(a, a), torch.zeros(1, 1, 2))


@pytest.mark.parametrize("relation", ["left of", "right of", "above", "below"])
def test_relations_are_1_exactly_where_geneval_says_yes(relation: str) -> None:
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}[relation]
    generator = torch.Generator().manual_seed(3)
    seen = {0.0: 0, 1.0: 0}
    for _ in range(300):
        corners, sizes = 40 * torch.rand(2, 2, generator=generator), 5 + 25 * torch.rand(2, 2, generator=generator)
        a, b = torch.cat([corners, corners + sizes], 1)
        if overlap(a[None], b[None]) > 0.5:
            continue
        value = relation_value(a[None], torch.ones(1), b[None], torch.ones(1), relation)
        says = geneval(a.tolist(), b.tolist())
        assert (value == 1) == (relation in says) and (value == 0) == (opposite in says)
        seen |= {value: seen.get(value, 0) + 1}
    assert seen[0.0] > 20 and seen[1.0] > 20 and len(seen) > 20


def test_relation_takes_the_best_pair_weighed_by_both() -> None:
    cats, dogs = torch.tensor([[0.0, 0, 10, 10], [80, 0, 90, 10]]), torch.tensor([[40.0, 0, 50, 10]])
    q_cats, q_dogs = torch.tensor([0.5, 0.8]), torch.tensor([0.9])
    assert relation_value(cats, q_cats, dogs, q_dogs, "left of") == pytest.approx(0.45)
    assert relation_value(cats, q_cats, dogs, q_dogs, "right of") == pytest.approx(0.72)
    # level with each other: halfway between yes and no
    assert relation_value(cats, q_cats, dogs, q_dogs, "above") == pytest.approx(0.36)


def test_one_thing_is_not_left_of_itself() -> None:
    box, q = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0.9])
    found = {CAT: (box, q)}
    assert check_value(Check((CAT, CAT), relation="left of"), found) == 0
    assert check_value(Check((CAT, DOG), relation="left of"), found | {DOG: (box, q)}) == 0
    assert check_value(Check((CAT, DOG), relation="left of"), found | {DOG: (box[:0], q[:0])}) == 0


class Stub:
    """A detector that finds what it is told, in every picture."""

    def __init__(self, *rows: tuple[list[float], dict[str, float]]) -> None:
        self.rows = rows
        self.model = SimpleNamespace(patcher=None)

    def check_labels(self, labels) -> None:
        self.labels = labels

    def detect(self, images, labels):
        boxes = torch.tensor([box for box, _ in self.rows])
        yield from [(boxes, torch.tensor([[s.get(label, 0.0) for label in labels] for _, s in self.rows]))] * len(images)


def red_left_blue_right() -> torch.Tensor:
    image = torch.full((1, 40, 80, 3), 0.6)
    image[:, 10:30, 5:25] = torch.tensor([0.9, 0.1, 0.1])
    image[:, 10:30, 55:75] = torch.tensor([0.1, 0.2, 0.9])
    return image


LEFT, RIGHT = [5.0, 10, 25, 30], [55.0, 10, 75, 30]


@pytest.mark.parametrize(
    ("checks", "value"),
    [
        ("a cup", 0.9),  # s = 0.5 at t = 0.1
        ("a ball", 0.75),  # s = 0.25
        ("a dog", 0.0),
        ("no dog", 1.0),
        ("2 cups", (0.9 + 0.75) / 2),
        ("one cup", 1 / 1.5 * 0.9),  # the second is 2 * 0.75 - 1 too many
        ("a red cup", 0.9),
        ("a blue cup", 0.75),
        ("a green cup", 0.0),
        ("one red cup", 0.9),
        ("two red cups", 0.45),
        ("a red cup left of a blue cup", 0.9 * 0.75),
        ("a blue cup left of a red cup", 0.0),
        ("a cup\na dog\na red cup", 0.6),
        ("a cup left of a ball", 0.9 * 0.75),
    ],
)
def test_score_is_the_mean_of_the_checks(checks: str, value: float) -> None:
    detector = Stub((LEFT, {"cup": 0.5}), (RIGHT, {"cup": 0.25, "ball": 0.25}))
    verifier = ObjectCheck(detector, checks, 0.1)
    torch.testing.assert_close(verifier.score(red_left_blue_right()), torch.tensor([value]))


def test_colors_are_left_out_of_what_the_detector_looks_for() -> None:
    verifier = ObjectCheck(detector := Stub(), "a red cup\na blue cup\n2 dogs", 0.1)
    assert verifier.labels == detector.labels == ("cup", "dog")


def test_colors_are_those_of_each_picture() -> None:
    images = torch.cat([red_left_blue_right(), red_left_blue_right().flip(2)])
    verifier = ObjectCheck(Stub((LEFT, {"cup": 0.5})), "a red cup\na cup", 0.1)
    torch.testing.assert_close(verifier.values(images), torch.tensor([[0.9, 0.9], [0.0, 0.9]]))


LONG = ["x. " * 40_000, "a cat left of a dog left of " * 4000, "9" * 120_000 + " cats"]


@pytest.mark.parametrize("line", LONG, ids=range(3))
def test_long_checks_are_quoted_in_part(line: str) -> None:
    with pytest.raises(ValueError, match=r"more letters\)") as raised:
        ObjectCheck(Stub(), line, 0.1)
    assert len(str(raised.value)) < 700


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, float("nan")])
def test_bad_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="object check: input 'threshold'"):
        ObjectCheck(Stub(), "a cat", threshold)
