"""A batch in slices, on a device that is too small for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from noise_search.verifiers.common.preprocess import in_slices, is_out_of_memory

SMALL = torch.arange(40.0).view(40, 1, 1, 1)


class Device:
    """Doubles what it is given, if there are no more than `room` rows; then fails as `error`."""

    def __init__(self, room: int, error: Exception | None = None) -> None:
        self.room, self.error, self.sizes = room, error or torch.cuda.OutOfMemoryError("no room"), []

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.room:
            raise self.error
        return 2 * images[:, :, 0, 0].half()


def worked(room: int, images: Tensor = SMALL) -> tuple[Device, Tensor]:
    device = Device(room)
    return device, in_slices(device, images)


@pytest.mark.parametrize(
    ("room", "sizes"),
    [
        (99, [16, 16, 8]),
        (8, [16, 8, 8, 8, 8, 8]),
        (9, [16, 8, 8, 8, 8, 8]),
        (5, [16, 8, *[4] * 10]),
        (1, [16, 8, 4, 2, *[1] * 40]),
    ],
)
def test_it_halves_and_goes_on_with_what_had_room(room: int, sizes: list[int]) -> None:
    device, found = worked(room)
    assert device.sizes == sizes
    assert found.dtype == torch.float32 and torch.equal(found, 2 * SMALL[:, :, 0, 0])


def test_large_pictures_come_in_slices_of_64_mb() -> None:
    images = torch.rand(5, 1500, 1500, 3)  # two of them are 54 MB, three would be 81
    device, _ = worked(99, images)
    assert device.sizes == [2, 2, 1]


def test_no_more_rows_than_asked_for() -> None:
    device = Device(99)
    assert torch.equal(in_slices(device, SMALL[:9], most=4), 2 * SMALL[:9, :, 0, 0])
    assert device.sizes == [4, 4, 1]


def test_one_row_too_much_surfaces_at_once() -> None:
    device = Device(0)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        in_slices(device, SMALL[:5])
    assert device.sizes == [5, 3, 2, 1]


def test_other_failures_surface_at_once() -> None:
    device = Device(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        in_slices(device, SMALL)
    assert device.sizes == [16]


def test_what_a_failed_attempt_held_is_free_in_the_next() -> None:
    import weakref

    held: list[weakref.ref] = []

    def work(images: Tensor) -> Tensor:
        assert not any(ref() is not None for ref in held)
        activations = images.clone()
        held.append(weakref.ref(activations))
        if len(images) > 1:
            raise torch.cuda.OutOfMemoryError("no room")
        return images

    assert in_slices(work, SMALL[:4]).shape == (4, 1, 1, 1)
    assert len(held) == 2 + 4  # of 4 and of 2, then one by one


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.cuda.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it
