"""A Hugging Face folder of a SigLIP model, loaded by transformers' stock classes."""

from __future__ import annotations

import json
import os
from typing import Any

from ..verifiers.siglip_score import SigLIP
from .weights import CONFIG, HeldModel, Wanted, held, repository_path

PREPROCESSOR = "preprocessor_config.json"
SPIECE = "spiece.model"  # the first generation's tokenizer
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # by their numbers in PIL


def load_siglip(wanted: Wanted, name: str) -> SigLIP:
    """Load SigLIP, or SigLIP 2 of a fixed resolution; nodes that name the same folder share its weights.

    Raises:
        ValueError: If the folder is not there, or is not such a model, whole and in safetensors.
    """
    path = repository_path(wanted, name)
    return held("SigLIP", path, lambda: _build(wanted, name, path))


def _build(wanted: Wanted, name: str, path: str) -> SigLIP:
    config, pictures = _settings(wanted, name, path, CONFIG), _settings(wanted, name, path, PREPROCESSOR)
    kind = config.get("model_type")
    if kind == "siglip2":
        raise wanted.refused(name, "a NaFlex model of SigLIP 2; take one of a fixed resolution (its name has no 'naflex')")
    if kind != "siglip":
        raise wanted.refused(name, f"a folder with a model of type {kind!r}, not 'siglip'")
    try:
        resample, mean, std = RESAMPLE[pictures["resample"]], tuple(pictures["image_mean"]), tuple(pictures["image_std"])
    except (KeyError, TypeError) as error:
        raise wanted.refused(name, f"a folder whose {PREPROCESSOR} has no usable value for {error}") from error
    model, tokenizer = _model(wanted, name, path)
    return SigLIP(
        HeldModel(model), tokenizer, model.config.text_config.max_position_embeddings, model.config.vision_config.image_size,
        resample, mean, std, model.logit_scale.float().exp().item(), model.logit_bias.float().item(),
    )  # fmt: skip


def _settings(wanted: Wanted, name: str, path: str, file: str) -> dict[str, Any]:
    try:
        with open(os.path.join(path, file), encoding="utf-8") as opened:
            found = json.load(opened)
    except (OSError, ValueError) as error:
        raise wanted.refused(name, f"a folder whose {file} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _model(wanted: Wanted, name: str, path: str) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, SiglipModel

    try:
        model, found = SiglipModel.from_pretrained(path, local_files_only=True, use_safetensors=True, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        if isinstance(error, ImportError) and os.path.isfile(os.path.join(path, SPIECE)):
            why = "a SigLIP of the first generation, whose tokenizer needs a package: pip install protobuf (SigLIP 2 does not)"
        else:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            why = f"a folder that transformers cannot load (it needs model.safetensors and the tokenizer's files): {said}"
        raise wanted.refused(name, why) from error
    if missing := sorted(found["missing_keys"]):
        raise wanted.refused(name, f"a folder whose weights are not whole ({', '.join(missing[:4])} is missing)")
    return model, tokenizer
