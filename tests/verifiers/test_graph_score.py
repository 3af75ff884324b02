"""What counts as a score: numbers of every make, one for each picture, and clear words for all else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from noise_search.verifiers.composite.graph_score import GraphScore, numbers


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([0.5], [0.5]),
        ([3], [3.0]),
        ([True], [1.0]),
        (["  -1.25e-1\n"], [-0.125]),
        (["7"], [7.0]),
        ([torch.tensor(0.5)], [0.5]),
        ([torch.full((1, 1, 1), 0.25)], [0.25]),
        ([np.float32(0.5)], [0.5]),
        ([np.array([2])], [2.0]),
        ([[0.5]], [0.5]),
        ([("4",)], [4.0]),
        ([1.0, 2.0], [1.0, 2.0]),  # a node that ComfyUI ran once for each item of a list
        ([[1.0, "2"]], [1.0, 2.0]),
        ([torch.tensor([[1.0], [2.0]])], [1.0, 2.0]),
    ],
)
def test_numbers_of_every_make(values: list, read: list[float]) -> None:
    assert numbers(values, len(read)) == read


@pytest.mark.parametrize(
    ("values", "count", "says"),
    [
        (["score: 5"], 1, "the text 'score: 5', which is not a number"),
        (["5/10"], 1, "not a number"),
        ([""], 1, "the text '', which"),
        (["x" * 100], 1, "'" + "x" * 57 + r"\.\.\.'"),
        ([None], 1, "of type NoneType, which holds no number"),
        ([{"score": 1}], 1, "of type dict"),
        ([1.0, 2.0], 1, r"gave 2 numbers for 1 picture"),
        ([0.5], 3, r"gave 1 numbers for 3 picture\(s\).*Set 'batch_size' to 1"),
        ([], 1, "gave 0 numbers"),
        ([torch.zeros(1, 8, 8, 3)], 1, r"a Tensor of shape \(1, 8, 8, 3\); 1 number\(s\) are needed"),
        ([np.array(["a"])], 1, "not a number"),
    ],
)
def test_all_else_is_refused(values: list, count: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        numbers(values, count)


def test_nan_is_let_through_to_be_ranked_last() -> None:
    assert np.isnan(numbers(["nan"], 1)).all()


PICTURES = torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 4, 4, 3)


def test_each_picture_alone_or_in_batches() -> None:
    seen: list[int] = []

    def mean_of_the_batch(images: torch.Tensor) -> list:
        seen.append(len(images))
        return [images.mean().item()] if len(images) == 1 else [images.mean(dim=(1, 2, 3))]

    expected = PICTURES.mean(dim=(1, 2, 3))
    assert torch.equal(GraphScore(mean_of_the_batch, "mean").score(PICTURES), expected) and seen == [1] * 5
    seen.clear()
    assert torch.equal(GraphScore(mean_of_the_batch, "mean", batch_size=2).score(PICTURES), expected) and seen == [2, 2, 1]
    assert torch.equal(GraphScore(mean_of_the_batch, "mean", prefer="low").score(PICTURES), -expected)


def test_the_picture_that_fails_is_named() -> None:
    def no_bright_ones(images: torch.Tensor) -> list:
        if images.max() > 0.6:
            raise ValueError("node 'Scorer' failed")
        return [0.0] * len(images)

    with pytest.raises(ValueError, match=r"^mean: node 'Scorer' failed \(picture 3 of 5, from 0\)$"):
        GraphScore(no_bright_ones, "mean").score(PICTURES)
    with pytest.raises(ValueError, match=r"\(pictures 2 to 3 of 5, from 0\)$"):
        GraphScore(no_bright_ones, "mean", batch_size=2).score(PICTURES)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="input 'prefer' is 'most'"):
        GraphScore(list, "x", prefer="most")
    with pytest.raises(ValueError, match="input 'batch_size' is 0"):
        GraphScore(list, "x", batch_size=0)
