"""What a search node holds of decoded pictures up to its outputs: those of the `keep` best once, and few others."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.comfy

import torch
from holding import Held
from searching import parts, search_with

from noise_search.nodes.adapter.session import ComfySession, clamped
from noise_search.search.methods.halving import HalvingSearch
from noise_search.search.scoring import image_cache
from toys import ToyVerifier


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("kind", ["eps", "flow5d"])
def test_outputs_hold_each_picture_once(monkeypatch, kind, keep):
    graph = parts(kind)
    want = search_with(graph, 3, budget=8, keep=keep, method=HalvingSearch(), held_out=ToyVerifier(name="held out"))
    size = want.images.nbytes // keep
    monkeypatch.setattr(image_cache, "PICTURE_BYTES", size)
    held, decode, score = Held(size), ComfySession.decode, ToyVerifier.score

    def decoding(self, latent, preview=False):
        held.look(1)
        return decode(self, latent, preview)

    def scoring(self, images, latents=None):
        held.look()
        return score(self, images, latents)

    monkeypatch.setattr(ComfySession, "decode", decoding)
    monkeypatch.setattr(ToyVerifier, "score", scoring)
    with held:
        got = search_with(graph, 3, budget=8, keep=keep, method=HalvingSearch(), held_out=ToyVerifier(name="held out"))
    assert got.images.untyped_storage().nbytes() == got.images.nbytes
    assert torch.equal(got.images, want.images) and got.report["order"] == want.report["order"]
    assert 0 < held.most <= keep + 3


def test_pictures_that_are_in_range_are_not_copied():
    pictures = torch.rand(2, 4, 4, 3)
    assert clamped(pictures) is pictures
    over = torch.stack([pictures, pictures * 3 - 1])
    assert torch.equal(clamped(over), over.clamp(0.0, 1.0)) and float(over.max()) > 1.0
    over[0, 0, 0, 0, 0] = torch.nan
    assert clamped(over).isnan().sum() == 1
