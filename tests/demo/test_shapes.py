"""The demo's pictures and its oracle, on exact cases and on many."""

from __future__ import annotations

import random

import pytest
import torch

from noise_search.demo import oracle, shapes


def picture(*things: tuple[str, str, tuple[float, float], float], background: float = 0.9) -> torch.Tensor:
    """Draw (colour, shape, centre, radius) things on a grey ground, with shape (1, 64, 64, 3)."""
    canvas = torch.full((1, 64, 64, 3), background)
    for color, shape, center, radius in things:
        mask = shapes.coverage(shape, torch.tensor([center]), torch.tensor([radius]))[..., None]
        canvas = torch.lerp(canvas, torch.tensor(shapes.COLORS[color]).expand_as(canvas), mask)
    return canvas


def drawn(count: int, seed: int) -> tuple[list[shapes.Scene], torch.Tensor]:
    rng = random.Random(seed)
    scenes = [shapes.random_scene(rng) for _ in range(count)]
    return scenes, shapes.draw(scenes, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_every_shape_has_the_circles_area_and_lies_on_its_centroid(shape: str) -> None:
    mask = shapes.coverage(shape, torch.tensor([[32.0, 30.0]]), torch.tensor([10.0]))[0]
    grid = torch.arange(64) + 0.5
    assert mask.sum() == pytest.approx(314, rel=0.05)
    assert (mask.sum(dim=0) * grid).sum() / mask.sum() == pytest.approx(32, abs=0.1)
    assert (mask.sum(dim=1) * grid).sum() / mask.sum() == pytest.approx(30, abs=0.1)


def test_prompts_are_seeded_and_parse_back() -> None:
    assert shapes.random_prompt(3) == shapes.random_prompt(3)
    assert len({shapes.random_prompt(n) for n in range(100)}) > 80
    scene = shapes.parse_prompt(" A red circle  left of a blue square.")
    assert scene == shapes.Scene("red", "circle", "left of", "blue", "square")
    assert shapes.parse_prompt(scene.prompt) == scene
    assert len(shapes.all_scenes()) == len(set(shapes.all_scenes())) == 5 * 4 * 4 * 4 * 4


@pytest.mark.parametrize("prompt", ["a cat", "a red circle left of a red square", ""])
def test_other_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt"):
        shapes.parse_prompt(prompt)


def test_a_hard_negative_differs_in_one_fact() -> None:
    rng = random.Random(0)
    for _ in range(100):
        scene = shapes.random_scene(rng)
        other = shapes.change_one_fact(scene, rng)
        assert sum(a != b for a, b in zip(vars(scene).values(), vars(other).values(), strict=True)) == 1
        assert other.color_a != other.color_b


def test_no_drawn_shape_touches_the_border() -> None:
    _, pictures = drawn(300, 1)
    masks = oracle.color_masks(pictures).sum(dim=1)
    edge = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], dim=1)
    assert edge.max() == 0


RED, BLUE = ("red", "circle", (18.0, 30.0), 9.0), ("blue", "square", (46.0, 34.0), 8.0)
PROMPT = "a red circle left of a blue square"


@pytest.mark.parametrize(
    ("things", "wrong"),
    [
        ([RED, BLUE], []),
        ([BLUE, RED], []),
        ([RED], ["color_b", "shape_b", "relation"]),
        ([], ["color_a", "color_b", "shape_a", "shape_b", "relation"]),
        ([("green", *RED[1:]), BLUE], ["color_a", "shape_a", "relation", "nothing_else"]),
        ([("red", "triangle", *RED[2:]), BLUE], ["shape_a"]),
        ([RED, ("blue", "star", *BLUE[2:])], ["shape_b"]),
        ([("red", "circle", (46.0, 30.0), 9.0), ("blue", "square", (18.0, 34.0), 8.0)], ["relation"]),
        ([("red", "circle", (30.0, 16.0), 9.0), ("blue", "square", (34.0, 46.0), 8.0)], ["relation"]),
        ([("blue", *RED[1:]), ("red", *BLUE[1:])], ["shape_a", "shape_b", "relation"]),
        ([RED, BLUE, ("yellow", "circle", (32.0, 54.0), 7.0)], ["nothing_else"]),
        ([("red", "circle", RED[2], 3.0), BLUE], ["color_a", "relation"]),
    ],
)
@pytest.mark.parametrize("background", [0.9, 0.12])
def test_the_oracle_names_the_facts_that_are_wrong(things: list, wrong: list[str], background: float) -> None:
    values = oracle.facts(picture(*things, background=background), shapes.parse_prompt(PROMPT))[0]
    assert [name for name, value in zip(oracle.FACTS, values, strict=True) if value < 0.5] == wrong
    assert oracle.exact_score(picture(*things), PROMPT).item() == (not wrong)


def test_the_oracle_is_right_on_clean_pictures_and_on_blurred_ones() -> None:
    scenes, pictures = drawn(400, 2)
    blurred = torch.nn.functional.avg_pool2d(pictures.permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False)
    blurred = blurred.permute(0, 2, 3, 1) + 0.03 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    rng = random.Random(3)
    for scene, clean, soft in zip(scenes, pictures, blurred, strict=True):
        other = shapes.change_one_fact(scene, rng).prompt
        assert oracle.exact_score(torch.stack([clean, soft]), scene.prompt).tolist() == [1, 1]
        assert oracle.exact_score(torch.stack([clean, soft]), other).tolist() == [0, 0]


def test_the_soft_score_agrees_with_the_exact_one_and_has_no_ties() -> None:
    _, pictures = drawn(200, 4)
    soft, exact = oracle.soft_score(pictures, PROMPT), oracle.exact_score(pictures, PROMPT)
    shown = oracle.soft_score(picture(RED, BLUE), PROMPT)
    assert soft.shape == (200,) and soft.min() >= 0 and soft.max() <= 1
    assert ((soft >= oracle.EXACT_FROM) == (exact == 1)).all()
    assert shown >= oracle.EXACT_FROM
    both = torch.cat([picture(RED, BLUE), picture(("red", "circle", (18.0, 30.5), 9.0), BLUE)])
    assert len(oracle.soft_score(both, PROMPT).unique()) == 2


def test_a_score_does_not_depend_on_the_batch_or_on_size() -> None:
    _, pictures = drawn(6, 5)
    whole = oracle.soft_score(pictures, PROMPT)
    alone = torch.cat([oracle.soft_score(p[None], PROMPT) for p in pictures])
    assert torch.allclose(whole, alone, atol=1e-6)
    large = pictures.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert torch.allclose(oracle.soft_score(large, PROMPT), whole, atol=1e-4)
