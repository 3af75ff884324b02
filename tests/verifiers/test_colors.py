"""Names of colors, against those that people gave them."""

from __future__ import annotations

import pytest
import torch

from noise_search.verifiers.content.colors import COLORS, color_share, name_colors

# The colors of these names in CSS; its brown is a dark red, so X11's "saddle brown" stands for it.
CSS = {
    "red": (255, 0, 0), "orange": (255, 165, 0), "yellow": (255, 255, 0), "green": (0, 128, 0), "blue": (0, 0, 255),
    "purple": (128, 0, 128), "pink": (255, 192, 203), "brown": (139, 69, 19), "black": (0, 0, 0), "white": (255, 255, 255),
    "grey": (128, 128, 128),
}  # fmt: skip


@pytest.mark.parametrize("color", COLORS)
def test_plain_colors(color: str) -> None:
    assert COLORS[name_colors(torch.tensor(CSS[color]) / 255)] == color


def test_colors_that_people_named() -> None:
    from matplotlib.colors import XKCD_COLORS, to_rgb

    named = [(name.removeprefix("xkcd:").split(), code) for name, code in XKCD_COLORS.items()]
    named = [(words, code) for words, code in named if len(words) == 2 and words[1] in COLORS and words[0] not in COLORS]
    named = [(words[1], code) for words, code in named if words[0] not in ("dark", "light")]
    ours = name_colors(torch.tensor([to_rgb(code) for _, code in named]))
    right = [COLORS[place] == name for place, (name, _) in zip(ours.tolist(), named, strict=True)]
    assert len(right) == 412
    assert sum(right) / len(right) > 0.88


def test_share_is_that_of_the_ellipse() -> None:
    image = torch.zeros(40, 60, 3)
    image[:20, :, 0] = 1  # upper half red
    assert color_share(image, torch.tensor([10.0, 10, 50, 30]), "red") == pytest.approx(0.5)
    assert color_share(image, torch.tensor([10.0, 10, 50, 30]), "black") == pytest.approx(0.5)
    assert color_share(image, torch.tensor([10.0, 2, 50, 18]), "red") == 1


def test_corners_of_the_box_do_not_count() -> None:
    y, x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    disk = (x - 20).square() + (y - 20).square() <= 400
    image = torch.where(disk[..., None], torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 1.0]))
    assert color_share(image, torch.tensor([0.0, 0, 40, 40]), "blue") == 1


def test_boxes_may_reach_out_of_the_picture() -> None:
    image = torch.zeros(20, 20, 3)
    image[..., 1] = 1
    assert color_share(image, torch.tensor([-10.0, -10, 30, 30]), "green") == 1
    for outside in ([30.0, 30, 40, 40], [-9.0, -9, -3, -3], [5.0, 5, 5, 5]):
        assert color_share(image, torch.tensor(outside), "green") == 0
