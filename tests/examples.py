"""The example workflows, and the form of them that runs on the demo model.

`example_workflows/NAME.json` is what a user loads (UI form, with a stock checkpoint loader). `demo_form` turns the
API form that the page makes of it into `tests/workflows/NAME.json`: the demo's loaders in the place of the
checkpoint's, and the demo's size, steps and prompt. `make_workflows.py` writes both and their pictures.
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
]  # fmt: skip

CHECKPOINT = "CheckpointLoaderSimple"
DEMO_PROMPT = "a green triangle above a yellow star"
# Files of tiny_files.py, in a test server's model folders.
TINY_CLIP, TINY_PICK_SCORE = "tiny-clip.safetensors", "tiny-pick-score.safetensors"
TINY_AESTHETIC, TINY_IMAGE_REWARD = "tiny-aesthetic.pth", "tiny-image-reward.pt"
DEMO_RUN = {"sampler_name": "euler", "scheduler": "simple", "steps": 16, "cfg": 3.5}
# By node type: the values that the demo model needs instead of the checkpoint's.
DEMO_VALUES: dict[str, dict[str, Any]] = {
    "EmptyLatentImage": {"width": 64, "height": 64},
    "NSSearchSampler": DEMO_RUN,
    "KSampler": DEMO_RUN,
    "CFGGuider": {"cfg": DEMO_RUN["cfg"]},
    "KSamplerSelect": {"sampler_name": DEMO_RUN["sampler_name"]},
    "BasicScheduler": {"scheduler": DEMO_RUN["scheduler"], "steps": DEMO_RUN["steps"]},
    "PrimitiveStringMultiline": {"value": DEMO_PROMPT},
    "CLIPTextEncode": {"text": ""},
    "NSClipScore": {"model_name": "none (use the connected models)", "prompt": "a green triangle"},  # if not connected
    "NSAestheticScore": {"model_name": TINY_AESTHETIC, "clip_name": TINY_CLIP},
    "NSImageReward": {"model_name": TINY_IMAGE_REWARD},
    "NSPickScore": {"model_name": TINY_PICK_SCORE},
    "ImageCrop": {"width": 64, "height": 32},  # the upper half
}
# Node type: its inputs, as the demo needs them.
DEMO_LOADERS: dict[str, dict[str, str]] = {
    "UNETLoader": {"unet_name": "noise-search-demo-mmdit.safetensors", "weight_dtype": "default"},
    "NSDemoCLIPLoader": {},
    "VAELoader": {"vae_name": "noise-search-demo-vae.safetensors"},
}
# Output of the checkpoint loader: the demo loader that stands in for it, and that one's output.
STAND_INS = {0: ("UNETLoader", 0), 1: ("NSDemoCLIPLoader", 0), 2: ("VAELoader", 0)}
CLIP_VISION = ("NSDemoCLIPLoader", 1)


def user_form(name: str) -> dict[str, Any]:
    """Return an example as the user gets it."""
    return json.loads((USER_FORMS / f"{name}.json").read_text(encoding="utf-8"))


def api_form(name: str) -> dict[str, Any]:
    """Return an example as the tests run it."""
    return json.loads((API_FORMS / f"{name}.json").read_text(encoding="utf-8"))


def demo_form(api: dict[str, Any]) -> dict[str, Any]:
    """Turn the API form of a user's workflow into one that runs on the demo model; titles are left out."""
    out: dict[str, Any] = {}
    checkpoints = {node_id for node_id, node in api.items() if node["class_type"] == CHECKPOINT}
    for node_id, node in sorted(api.items(), key=lambda item: int(item[0])):
        kind = node["class_type"]
        if kind == CHECKPOINT:
            continue
        inputs = {}
        for name, value in sorted(node["inputs"].items()):
            if (kind, name) == ("PreviewAny", "preview"):  # what the page shows; the node has no such input
                continue
            if isinstance(value, list) and value[0] in checkpoints:
                inputs[name] = list(STAND_INS[value[1]])
            elif isinstance(value, list):
                inputs[name] = value
            else:
                inputs[name] = DEMO_VALUES.get(kind, {}).get(name, value)
        if kind == "NSClipScore":
            inputs["clip"], inputs["clip_vision"] = list(STAND_INS[1]), list(CLIP_VISION)
        out[node_id] = {"class_type": kind, "inputs": dict(sorted(inputs.items()))}
    for kind, inputs in DEMO_LOADERS.items():
        if any([kind, slot] in node["inputs"].values() for node in out.values() for slot in (0, 1)):
            out[kind] = {"class_type": kind, "inputs": inputs}
    return out
