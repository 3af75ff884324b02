"""Row b of a latent batch is searched with row b of all conditioning: also inside lists, dictionaries and controls."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.clip_vision
import comfy.model_base
import comfy.utils
import torch
from families import FAMILIES, guider, latent_of, patcher_of
from sessions import relative
from test_families import NAMES

from noise_search.nodes.adapter import batch_rows
from noise_search.nodes.adapter.batch_rows import row_cond, row_control
from noise_search.nodes.adapter.noise import rows_of
from noise_search.nodes.adapter.session import ComfySession
from noise_search.nodes.run.runner import graphs
from noise_search.search.base.budget import Budget
from noise_search.search.noise.recipe import GIVEN, Recipe
from toys import cond, empty_latent, run_node, sampler, sigmas_for, stock, tiny_controlnet, tiny_unet
from toys import guider as toy_guider

PICTURE, VIDEO = (2, 4, 8, 8), (2, 16, 3, 8, 8)
# What models read that is no entry with rows: numbers, names, and what core itself hands over.
NO_ROWS = {
    "aesthetic_score", "area", "aspect_ratio", "attention_mask_img_shape", "audio_inject_scale", "augmentation_level",
    "azimuth", "concat_mask_index", "crop_h", "crop_w", "denoise_mask", "device", "elevation", "fps", "frame_rate",
    "generated_keyframes", "guiding_frame_index", "height", "latent_image", "latent_shapes", "lyrics_strength",
    "minimax_audio_cond_noise_aug", "minimax_keyframes", "minimax_refs", "minimax_token_tags",
    "minimax_visual_cond_noise_aug", "motion_bucket_id", "noise", "noise_augmentation", "pose_strength", "prompt_type",
    "ref_mask_flag", "reference_latents_method", "reference_strength", "seconds_start", "seconds_total", "seed",
    "t5xxl_ids", "t5xxl_weights", "target_height", "target_width", "unclip_noise_augment_merge", "unprocessed_ltxav_embeds",
    "vace_strength", "width",
}  # fmt: skip


class Given:
    """A NOISE of given values."""

    seed = 5

    def __init__(self, values) -> None:
        self.values = values

    def generate_noise(self, latent):
        return self.values


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_family(name):
    """Conditioning of two rows, made row by row: each search equals the stock run with that row's."""
    family, patcher = FAMILIES[name], patcher_of(name)
    sigmas, latent, smp = sigmas_for(patcher, steps=3), latent_of(family, 2), sampler("euler")
    (noise,) = run_node("RandomNoise", noise_seed=5)
    for row, graph in enumerate(graphs(noise, guider(family, patcher, (0, 1)), smp, sigmas, latent, None)):
        session = ComfySession(graph, Budget(10))
        runs = [session.start(Recipe(GIVEN, 5)), session.start(Recipe(11, 11))]
        session.advance(runs)
        own, single = guider(family, patcher, (row,)), latent_of(family)
        for run, start in zip(runs, (Given(rows_of(noise.generate_noise(latent), row, 1)), 11), strict=True):
            assert relative(run.latent, stock(own, start, smp, sigmas, single)) < 1e-4
    other_row = stock(guider(family, patcher), 11, smp, sigmas, single)
    assert relative(runs[1].latent, other_row) > 1e-3  # and the test can tell


def test_each_entry_that_models_read_is_decided():
    """A newer core may read others: does its first dimension follow the batch?"""
    read = set(re.findall(r"""kwargs(?:\.get\(|\[)["'](\w+)["']""", inspect.getsource(comfy.model_base)))
    decided = batch_rows.ROW_ENTRIES | batch_rows.SPREAD_ENTRIES | batch_rows.VECTOR_ENTRIES | batch_rows.OTHER_ENTRIES | NO_ROWS
    assert len(read) > 50
    assert read <= decided


def test_nests_are_cut():
    draw = torch.randn
    two, three, one = draw(2, 3), draw(3, 3), draw(1, 3)
    entry = {"reference_latents": [two, three, one], "ref_audio": {"tokens": two}, "audio_codes": [[1, 2], [3, 4]],
             "guide_attention_entries": [{"pixel_mask": two, "latent_shape": [1, 2, 3]}],
             "degrade_sigma": torch.tensor([1.0, 2.0]), "vace_strength": [1.0, 0.5], "guidance": 3.5,
             "area": ("percentage", 0.5, 0.5, 0.0, 0.0)}  # fmt: skip
    cut = row_cond(entry, 3, (4, 4, 8, 8))
    assert [torch.equal(a, b) for a, b in zip(cut["reference_latents"], (two[1:], three[:1], one), strict=True)] == [True] * 3
    assert torch.equal(cut["ref_audio"]["tokens"], two[1:]) and cut["audio_codes"] == [[3, 4]]
    assert torch.equal(cut["guide_attention_entries"][0]["pixel_mask"], two[1:])
    assert cut["guide_attention_entries"][0]["latent_shape"] == [1, 2, 3] and cut["degrade_sigma"].tolist() == [2.0]
    assert all(cut[name] is entry[name] for name in ("vace_strength", "guidance", "area"))
    assert entry["reference_latents"][0] is two  # the user's own stays as it is
    nothing = {"reference_latents": [one], "clip_vision_output": vision(1), "mask": torch.ones(8, 8)}
    assert row_cond(nothing, 1, PICTURE) is nothing


def vision(count: int) -> comfy.clip_vision.Output:
    """What an image encoder makes of so many pictures."""
    out = comfy.clip_vision.Output()
    out["penultimate_hidden_states"], out["image_embeds"] = torch.randn(count, 5, 8), torch.randn(count, 8)
    out["image_sizes"], out["mm_projected"] = [torch.Size((3, 8 + row, 8)) for row in range(count)], None
    return out


def test_clip_vision_outputs_are_cut():
    given = vision(2)
    cut = row_cond({"clip_vision_output": given}, 1, PICTURE)["clip_vision_output"]
    assert torch.equal(cut["penultimate_hidden_states"], given["penultimate_hidden_states"][1:])
    assert torch.equal(cut.image_embeds, given.image_embeds[1:]) and cut.image_sizes == [(3, 9, 8)] and cut.mm_projected is None
    assert given.image_embeds.shape[0] == 2
    unclip = {"unclip_conditioning": [{"clip_vision_output": given, "strength": 1.0}]}  # all its pictures count
    assert row_cond(unclip, 1, PICTURE) is unclip


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("given", [2, 3, 5])
def test_pictures_to_concatenate_are_spread_as_core_does(given, count):
    value = torch.arange(given * 2.0).reshape(given, 2)
    want = comfy.utils.resize_to_batch_size(value, count)
    got = [row_cond({"concat_latent_image": value}, row, (count, 4, 8, 8))["concat_latent_image"] for row in range(count)]
    assert torch.equal(torch.cat(got), want)


def test_entries_of_other_packs_are_cut_where_they_have_a_row_for_each():
    entry = {"of_another_pack": torch.randn(2, 3), "points": torch.randn(5, 3), "names": ["a", "b"]}
    cut = row_cond(entry, 1, PICTURE)
    assert torch.equal(cut["of_another_pack"], entry["of_another_pack"][1:])
    assert cut["points"] is entry["points"] and cut["names"] is entry["names"]
    assert row_cond(entry, 0, (1, 4, 8, 8)) is entry


@pytest.mark.parametrize(("shape", "latent", "is_cut"), [
    ((2, 8, 8), PICTURE, True), ((8, 8), PICTURE, False), ((2, 3, 8, 8), VIDEO, True), ((3, 8, 8), VIDEO, False),
])  # fmt: skip
def test_masks_of_video_conditioning_have_frames(shape, latent, is_cut):
    """As core reads them: a mask of three dimensions is that of one video."""
    entry = {"mask": torch.rand(shape)}
    cut = row_cond(entry, 1, latent)["mask"]
    assert torch.equal(cut, entry["mask"][1:]) if is_cut else cut is entry["mask"]


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 1, 8, 8), (2, 1, 3, 8, 8)], ids=str)
def test_noise_masks_of_video(shape):
    """Each row equals the same row of a stock batch: core takes a mask of less than five dimensions for frames."""
    family, patcher = FAMILIES["wan 2.1"], patcher_of("wan 2.1")
    generator = torch.Generator().manual_seed(1)
    latent = {"samples": torch.randn(2, 16, 3, 8, 8, generator=generator), "noise_mask": torch.rand(shape, generator=generator)}
    g, sigmas = guider(family, patcher), sigmas_for(patcher, steps=3)
    (noise,) = run_node("RandomNoise", noise_seed=5)
    want = stock(g, noise, "euler", sigmas, latent)
    for row, graph in enumerate(graphs(noise, g, sampler("euler"), sigmas, latent, None)):
        session = ComfySession(graph, Budget(10))
        run = session.start(Recipe(GIVEN, 5))
        session.advance([run])
        assert relative(run.latent, want[row : row + 1]) < 1e-4


def test_control_hints_and_their_masks():
    """Each row equals the same row of a stock batch: hints are repeated over the batch, and masks over the hints."""
    model, latent, count = tiny_unet(), empty_latent("eps", 4), 4
    generator = torch.Generator().manual_seed(1)
    hint, mask = torch.rand(3, 3, 64, 64, generator=generator), torch.rand(2, 1, 64, 64, generator=generator)
    control = tiny_controlnet(4).set_cond_hint(hint, 1.0, (0.0, 1.0), extra_concat=[mask])
    positive = [[words, {**extra, "control": control}] for words, extra in cond(model, 1)]
    g, sigmas = toy_guider(model, 3.0, positive), sigmas_for(model, steps=3)
    (noise,) = run_node("RandomNoise", noise_seed=5)
    want = stock(g, noise, "euler", sigmas, latent)
    made = list(graphs(noise, g, sampler("euler"), sigmas, latent, None))
    for row, graph in enumerate(made):
        session = ComfySession(graph, Budget(10))
        run = session.start(Recipe(GIVEN, 5))
        session.advance([run])
        assert relative(run.latent, want[row : row + 1]) < 1e-4
    assert len(made) == count
    masks = [row_control(control, row).extra_concat_orig[0] for row in range(count)]
    assert [torch.equal(got, mask[want : want + 1]) for got, want in zip(masks, (0, 1, 0, 0), strict=True)] == [True] * 4


def test_hints_that_a_video_vae_encodes_are_one():
    control = tiny_controlnet().set_cond_hint(torch.rand(3, 3, 8, 8), 1.0, (0.0, 1.0))
    control.vae = SimpleNamespace(latent_dim=3, not_video=False)
    assert row_control(control, 1) is control
    control.vae.not_video = True
    assert torch.equal(row_control(control, 1).cond_hint_original, control.cond_hint_original[1:2])
