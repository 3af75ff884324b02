"""The demo's weights behind stock ComfyUI nodes, and its CLIP against transformers."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch

from noise_search.demo import shapes

pytestmark = pytest.mark.comfy
PROMPTS = ["a red circle left of a blue square", "a green star above a purple triangle", "", "two dogs"]


@pytest.fixture(scope="module")
def extension():  # noqa: ANN201
    from inprocess import boot

    boot()
    from noise_search.demo import comfy_entrypoint

    return asyncio.run(comfy_entrypoint())


@pytest.fixture(scope="module")
def towers(extension):  # noqa: ANN001, ANN201
    from noise_search.demo.nodes import DemoCLIPLoader

    return DemoCLIPLoader.execute().result


def test_the_extension_registers_its_nodes_and_folders(extension) -> None:  # noqa: ANN001
    import folder_paths

    ids = [node.define_schema().node_id for node in asyncio.run(extension.get_node_list())]
    assert ids == ["NSDemoCLIPLoader", "NSDemoPrompt", "NSDemoOracle"]
    assert "noise-search-demo-mmdit.safetensors" in folder_paths.get_filename_list("diffusion_models")
    assert "noise-search-demo-vae.safetensors" in folder_paths.get_filename_list("vae")


def test_the_clip_equals_transformers(towers) -> None:  # noqa: ANN001
    from comfy.clip_vision import clip_preprocess
    from transformers import CLIPModel, CLIPTokenizer

    from noise_search.demo.loaders import CLIP_FOLDER

    clip, vision = towers
    reference = CLIPModel.from_pretrained(str(CLIP_FOLDER), dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(str(CLIP_FOLDER))
    tokens = tokenizer(PROMPTS, padding="max_length", max_length=12, truncation=True, return_tensors="pt")["input_ids"]
    scenes = [shapes.random_scene(random.Random(n)) for n in range(4)]
    pictures = shapes.draw(scenes, torch.Generator().manual_seed(0))
    text = reference.text_model(input_ids=tokens)
    words = torch.nn.functional.normalize(reference.text_projection(text.pooler_output), dim=1)
    pixels = reference.vision_model(pixel_values=clip_preprocess(pictures, size=64)).pooler_output
    images = torch.nn.functional.normalize(reference.visual_projection(pixels), dim=1)

    encoded = [clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True) for prompt in PROMPTS]
    ours = torch.nn.functional.normalize(torch.cat([pooled for _, pooled in encoded]), dim=1)
    seen = torch.nn.functional.normalize(vision.encode_image(pictures)["image_embeds"].float(), dim=1)
    assert torch.allclose(seen @ ours.T, images @ words.T, atol=1e-4)
    assert torch.allclose(torch.cat([cond for cond, _ in encoded]), text.last_hidden_state, atol=1e-4)
    assert clip.cond_stage_model.clip_l.logit_scale == reference.logit_scale


def test_stock_nodes_turn_a_prompt_into_a_picture(towers) -> None:  # noqa: ANN001
    import comfy.model_base
    import nodes

    clip, _ = towers
    (model,) = nodes.UNETLoader().load_unet("noise-search-demo-mmdit.safetensors", "default")
    (vae,) = nodes.VAELoader().load_vae("noise-search-demo-vae.safetensors")
    assert isinstance(model.model, comfy.model_base.SD3)
    assert model.get_model_object("model_sampling").shift == 3.0
    positive, negative = (nodes.CLIPTextEncode().encode(clip, text)[0] for text in (PROMPTS[0], ""))
    latent = {"samples": torch.zeros(2, 16, 8, 8)}
    (out,) = nodes.KSampler().sample(model, 1, 8, 3.5, "euler", "simple", positive, negative, latent)
    (pictures,) = nodes.VAEDecode().decode(vae, out)
    assert pictures.shape == (2, 64, 64, 3) and pictures.min() >= 0 and pictures.max() <= 1
    assert pictures.std() > 0.05


def test_the_autoencoder_keeps_what_the_oracle_reads(extension) -> None:  # noqa: ANN001
    import nodes

    from noise_search.demo.oracle import exact_score

    (vae,) = nodes.VAELoader().load_vae("noise-search-demo-vae.safetensors")
    rng = random.Random(11)
    scenes = [shapes.random_scene(rng) for _ in range(60)]
    pictures = vae.decode(vae.encode(shapes.draw(scenes, torch.Generator().manual_seed(11))))
    right = [exact_score(p[None], s.prompt).item() for p, s in zip(pictures, scenes, strict=True)]
    assert sum(right) >= 58


def test_the_clip_prefers_the_right_prompt_mostly(towers) -> None:  # noqa: ANN001
    clip, vision = towers
    rng = random.Random(12)
    scenes = [shapes.random_scene(rng) for _ in range(100)]
    images = vision.encode_image(shapes.draw(scenes, torch.Generator().manual_seed(12)))["image_embeds"]
    wins = 0
    for scene, image in zip(scenes, images, strict=True):
        pair = [scene.prompt, shapes.change_one_fact(scene, rng).prompt]
        words = torch.cat([clip.encode_from_tokens(clip.tokenize(p), return_pooled=True)[1] for p in pair])
        right, wrong = torch.nn.functional.cosine_similarity(words, image[None])
        wins += bool(right > wrong)
    assert wins >= 75


def test_the_prompt_node_and_the_oracle_node() -> None:
    from noise_search.demo.nodes import DemoOracle, DemoPrompt

    (prompt,) = DemoPrompt.execute(seed=5).result
    picture = shapes.draw([shapes.parse_prompt(prompt)], torch.Generator().manual_seed(1))
    (soft,), (exact,) = (DemoOracle.execute(prompt, mode).result for mode in ("soft score", "exact"))
    assert (soft.name, soft.needs_prompt, soft.prompt, soft.trusts_previews) == ("oracle", True, prompt, True)
    assert soft.score_range == (0.0, 1.0)
    assert exact.score(picture).tolist() == [1.0]
    assert 0.9 <= soft.score(picture, latents=torch.zeros(1, 16, 8, 8)).item() < 1
    with pytest.raises(ValueError, match="a cat"):
        DemoOracle.execute("a cat", "exact")
