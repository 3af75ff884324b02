"""The example workflows, and the form of them that runs on the demo model.

`example_workflows/NAME.json` is what a user loads (UI form, with stock loaders). `demo_form` turns the API form that
the page makes of it into `tests/workflows/NAME.json`: the demo's loaders in the place of the user's, and the demo's
size, steps and prompt. `tools/make_workflows.py` writes both and their pictures.

What that does not show: the demo is an SD3-type model that draws at 64 pixels only, whatever a template loads.
FluxGuidance changes nothing in it, a LoRA is left out, AuraFlow's shift becomes SD3's, Wan's video is one frame long,
and the hires example enlarges nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
USER_FORMS = ROOT / "example_workflows"
API_FORMS = ROOT / "tests" / "workflows"
NAMES = [
    "text_to_image_search", "advanced_search", "reuse_a_winner", "score_a_batch", "score_with_any_nodes", "paper_ensemble",
    "sdxl_search", "flux_search", "z_image_search", "qwen_image_search", "wan_video_search", "inpaint_region_search",
    "hires_from_winner", "choose_by_hand",
]  # fmt: skip

DEMO_PROMPT = "a green triangle above a yellow star"
# Files of tiny_files.py, in a test server's model folders.
TINY_CLIP, TINY_PICK_SCORE = "tiny-clip.safetensors", "tiny-pick-score.safetensors"
TINY_AESTHETIC, TINY_IMAGE_REWARD = "tiny-aesthetic.pth", "tiny-image-reward.pt"
INPUT_PICTURE = "example.png"  # ComfyUI's own in a user's input folder; tiny_files.py puts one of the demo's there
DEMO_RUN = {"sampler_name": "euler", "scheduler": "simple", "steps": 16, "cfg": 3.5}
DEMO_SIZE = {"width": 64, "height": 64}
# By node type, or by title where nodes of a type differ: the values that the demo model needs instead.
DEMO_VALUES: dict[str, dict[str, Any]] = {
    "EmptyLatentImage": DEMO_SIZE,
    "EmptySD3LatentImage": DEMO_SIZE,
    "ImageScale": DEMO_SIZE,
    "LatentUpscaleBy": {"scale_by": 1.0},
    "SolidMask": DEMO_SIZE,
    "NSSearchSampler": DEMO_RUN,
    "KSampler": DEMO_RUN,
    "CFGGuider": {"cfg": DEMO_RUN["cfg"]},
    "KSamplerSelect": {"sampler_name": DEMO_RUN["sampler_name"]},
    "BasicScheduler": {"scheduler": DEMO_RUN["scheduler"], "steps": DEMO_RUN["steps"]},
    "ModelSamplingSD3": {"shift": 3.0},
    "PrimitiveStringMultiline": {"value": DEMO_PROMPT},
    "CLIPTextEncode": {"text": ""},
    "NSClipScore": {"model_name": "none (use the connected models)", "prompt": "a green triangle"},  # if not connected
    "NSAestheticScore": {"model_name": TINY_AESTHETIC, "clip_name": TINY_CLIP},
    "NSImageReward": {"model_name": TINY_IMAGE_REWARD},
    "NSPickScore": {"model_name": TINY_PICK_SCORE},
    "NSHumanVerifier": {"timeout": 1.0},  # nobody answers: the assistant does
    "ImageCrop": {"width": 64, "height": 32},  # the upper half
    "Region: left": {"value": 8},
    "Region: top": {"value": 32},
    "Region: width": {"value": 48},
    "Region: height": {"value": 32},
}
# Node type: its inputs, as the demo needs them.
DEMO_LOADERS: dict[str, dict[str, str]] = {
    "UNETLoader": {"unet_name": "noise-search-demo-mmdit.safetensors", "weight_dtype": "default"},
    "NSDemoCLIPLoader": {},
    "VAELoader": {"vae_name": "noise-search-demo-vae.safetensors"},
}
MODEL, CLIP, VAE = ("UNETLoader", 0), ("NSDemoCLIPLoader", 0), ("VAELoader", 0)
CLIP_VISION = ("NSDemoCLIPLoader", 1)
# A user's loader: what stands in for each of its outputs.
STAND_INS: dict[str, tuple[tuple[str, int], ...]] = {
    "CheckpointLoaderSimple": (MODEL, CLIP, VAE),
    "UNETLoader": (MODEL,),
    "LoraLoaderModelOnly": (MODEL,),
    "CLIPLoader": (CLIP,),
    "DualCLIPLoader": (CLIP,),
    "VAELoader": (VAE,),
}
# Nodes for other kinds of model: the demo's kind, which lacks some of their inputs.
REPLACED = {"EmptyHunyuanLatentVideo": "EmptySD3LatentImage", "ModelSamplingAuraFlow": "ModelSamplingSD3"}
LEFT_OUT = {
    ("EmptyHunyuanLatentVideo", "length"),
    ("PreviewAny", "preview"),  # the page's own
    ("CreateVideo", "bit_depth"), ("SaveVideo", "format.codec"),  # of newer ComfyUIs, which do without them too
}  # fmt: skip


def user_form(name: str) -> dict[str, Any]:
    """Return an example as the user gets it."""
    return json.loads((USER_FORMS / f"{name}.json").read_text(encoding="utf-8"))


def api_form(name: str) -> dict[str, Any]:
    """Return an example as the tests run it."""
    return json.loads((API_FORMS / f"{name}.json").read_text(encoding="utf-8"))


def demo_values(kind: str, title: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return a node's values as the demo model needs them; runs without guidance (cfg 1) stay so.

    Args:
        kind: the node's type, as in the user's form.
        title: on the node.
        values: of its inputs that are not connected.
    """
    needed = DEMO_VALUES.get(title) or DEMO_VALUES.get(REPLACED.get(kind, kind), {})
    kept = {name: value for name, value in values.items() if (kind, name) not in LEFT_OUT}
    return {name: needed.get(name, value) if (name, value) != ("cfg", 1) else value for name, value in kept.items()}


def demo_form(api: dict[str, Any]) -> dict[str, Any]:
    """Turn the API form of a user's workflow into one that runs on the demo model; titles are left out."""
    out: dict[str, Any] = {}
    stand_ins = {node_id: STAND_INS[node["class_type"]] for node_id, node in api.items() if node["class_type"] in STAND_INS}
    for node_id, node in sorted(api.items(), key=lambda item: int(item[0])):
        if node_id in stand_ins:
            continue
        kind, title = node["class_type"], node.get("_meta", {}).get("title", "")
        links = {name: link for name, link in node["inputs"].items() if isinstance(link, list)}
        values = {name: value for name, value in node["inputs"].items() if name not in links}
        inputs = demo_values(kind, title, values)
        for name, (origin, slot) in links.items():
            inputs[name] = list(stand_ins[origin][slot]) if origin in stand_ins else [origin, slot]
        if kind == "NSClipScore":
            inputs["clip"], inputs["clip_vision"] = list(CLIP), list(CLIP_VISION)
        out[node_id] = {"class_type": REPLACED.get(kind, kind), "inputs": dict(sorted(inputs.items()))}
    for kind, inputs in DEMO_LOADERS.items():
        if any([kind, slot] in node["inputs"].values() for node in out.values() for slot in (0, 1)):
            out[kind] = {"class_type": kind, "inputs": inputs}
    return out
