"""A Hugging Face folder of a SigLIP model, loaded by transformers' stock classes."""

from __future__ import annotations

import os
from typing import Any

from ...verifiers.clip.siglip_score import SigLIP
from .files import HeldModel, Wanted, held, repository_path, said
from .transformers import HERE, PREPROCESSOR, import_transformers, read_config, read_model, read_settings

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
    config, pictures = read_config(wanted, name, path), read_settings(wanted, name, path, PREPROCESSOR)
    if config.model_type == "siglip2":
        raise wanted.refused(name, "a NaFlex model of SigLIP 2; take one of a fixed resolution (its name has no 'naflex')")
    if config.model_type != "siglip":
        raise wanted.refused(name, f"a folder with a model of type {config.model_type!r}, not 'siglip'")
    try:
        resample = RESAMPLE[pictures["resample"]]
        mean, std = (tuple(map(float, pictures[key])) for key in ("image_mean", "image_std"))
    except (KeyError, TypeError, ValueError) as error:
        raise wanted.refused(name, f"a folder whose {PREPROCESSOR} has no usable value for {error}") from error
    if len(mean) != 3 or len(std) != 3:
        raise wanted.refused(name, f"a folder whose {PREPROCESSOR} has no usable value for 'image_mean' and 'image_std'")
    load = import_transformers(wanted).SiglipModel.from_pretrained
    model = read_model(wanted, name, load, path, "SigLIP", config=config)
    return SigLIP(
        HeldModel(model), _tokenizer(wanted, name, path), model.config.text_config.max_position_embeddings,
        model.config.vision_config.image_size, resample, mean, std, model.logit_scale.float().exp().item(),
        model.logit_bias.float().item(),
    )  # fmt: skip


def _tokenizer(wanted: Wanted, name: str, path: str) -> Any:
    try:
        return import_transformers(wanted).AutoTokenizer.from_pretrained(path, **HERE)
    except Exception as error:
        why = f"a folder whose tokenizer transformers cannot load: {said(error)}"
        if isinstance(error, ImportError) and os.path.isfile(os.path.join(path, SPIECE)):
            why = "a SigLIP of the first generation, whose tokenizer needs a package: pip install protobuf (SigLIP 2 does not)"
        raise wanted.refused(name, why) from error
