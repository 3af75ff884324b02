"""Build ComfyUI's own CLIP and CLIP_VISION objects from the demo's Hugging Face folder.

ComfyUI's file loaders know CLIPs by their published sizes; its classes take any size from a config. The text
tower's embedding table is the one part they fix (at CLIP's 49,408 words), so it is replaced by one of our
vocabulary's size.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import comfy.clip_model
import comfy.clip_vision
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch

WEIGHTS = Path(__file__).resolve().parent / "weights"
CLIP_FOLDER = WEIGHTS / "noise-search-demo-clip"


def register_folders() -> None:
    """Let the stock UNETLoader and VAELoader list the demo's files."""
    for kind in ("diffusion_models", "vae"):
        folder_paths.add_model_folder_path(kind, str(WEIGHTS / kind))


class SmallCLIPTextModel(comfy.clip_model.CLIPTextModel):
    """ComfyUI's CLIP text tower with the vocabulary size of its config."""

    def __init__(self, config_dict: dict[str, Any], dtype: torch.dtype, device: torch.device, operations: Any) -> None:
        super().__init__(config_dict, dtype, device, operations)
        table = operations.Embedding(config_dict["vocab_size"], config_dict["hidden_size"], dtype=dtype, device=device)
        self.set_input_embeddings(table)


class SmallCLIPModel(comfy.sd1_clip.SDClipModel):
    """ComfyUI's wrapper of a text tower, for the config of a Hugging Face folder."""

    def __init__(self, config: dict[str, Any], device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
        tokens = {
            "start": config["bos_token_id"],
            "end": config["eos_token_id"],
            "pad": config["eos_token_id"],
        }
        super().__init__(
            device=device, dtype=dtype, max_length=config["max_position_embeddings"], layer="last",
            textmodel_json_config=config, model_class=SmallCLIPTextModel, special_tokens=tokens,
            model_options=model_options or {},
        )  # fmt: skip


def load_clip(folder: Path = CLIP_FOLDER) -> comfy.sd.CLIP:
    """Return the folder's text tower and tokenizer as ComfyUI's CLIP.

    The pooled vector it gives is the projected one, so that it can be compared with an image's.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["text_config"]
    tokenizer = partial(
        comfy.sd1_clip.SDTokenizer, tokenizer_path=str(folder), max_length=config["max_position_embeddings"],
        embedding_size=config["hidden_size"],
    )  # fmt: skip
    target = comfy.supported_models_base.ClipTarget(
        partial(comfy.sd1_clip.SD1Tokenizer, tokenizer=tokenizer),
        partial(comfy.sd1_clip.SD1ClipModel, clip_model=partial(SmallCLIPModel, config)),
    )
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    state = comfy.utils.load_torch_file(str(folder / "model.safetensors"))
    scale = state["logit_scale"]
    state = {name: value for name, value in state.items() if name.startswith("text_")}
    missing, _ = clip.load_sd(state)
    if missing:
        raise ValueError(f"{folder}/model.safetensors lacks {missing}")
    clip.cond_stage_model.clip_l.logit_scale.data.copy_(scale)
    return clip


def load_clip_vision(folder: Path = CLIP_FOLDER) -> comfy.clip_vision.ClipVisionModel:
    """Return the folder's vision tower as ComfyUI's CLIP_VISION."""
    vision = comfy.clip_vision.ClipVisionModel(str(folder / "vision_config.json"))
    vision.model.float()  # 4 MB: not worth half precision, which would move scores in the fourth digit
    vision.dtype = torch.float32
    state = comfy.utils.load_torch_file(str(folder / "model.safetensors"))
    state = {name: value for name, value in state.items() if name.startswith(("vision_", "visual_"))}
    missing, _ = vision.load_sd(state)
    if missing:
        raise ValueError(f"{folder}/model.safetensors lacks {missing}")
    return vision
