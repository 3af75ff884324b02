"""A folder with an open-vocabulary detector, loaded by transformers."""

from __future__ import annotations

import json
import os
from typing import Any

import torch

from ..verifiers.detector import THRESHOLDS, Detector
from .weights import CONFIG, FOLDER, HeldModel, Wanted, held, repository_path

WANTED = Wanted(
    "Object Check",
    "model_name",
    (FOLDER,),
    "all json and txt files and model.safetensors of https://huggingface.co/google/owlv2-base-patch16-ensemble, in a folder of"
    " their own",
)


# One of each must be there: transformers makes up a tokenizer without words where it finds none.
NEEDED = (
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "vocab.json", "vocab.txt"),
    ("model.safetensors", "model.safetensors.index.json"),
)


def load_detector(name: str) -> Detector:
    """Load a detector by the name of its folder.

    Raises:
        ValueError: it is not there, not of a known kind, or its files are damaged or lack something.
    """
    path = repository_path(WANTED, name)
    return held("detector", path, lambda: _build(name, path))


def _build(name: str, path: str) -> Detector:
    kind = _kind(name, path)
    for files in NEEDED:
        if not any(os.path.isfile(os.path.join(path, file)) for file in files):
            raise WANTED.refused(name, f"a folder without {' or '.join(files)} ({path})")
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        if hasattr(config, "disable_custom_kernels"):
            config.disable_custom_kernels = True  # else Grounding DINO may try to compile one
        processor = transformers.AutoProcessor.from_pretrained(path, local_files_only=True)
        module, info = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(
            path, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WANTED.refused(name, f"a folder that transformers {transformers.__version__} cannot load: {said}") from error
    _check_complete(name, info)
    return Detector(HeldModel(module, torch.float32), processor, kind)  # half precision is not safe in Grounding DINO


def _kind(name: str, path: str) -> str:
    try:
        with open(os.path.join(path, CONFIG), encoding="utf-8") as file:
            kind = json.load(file)["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise WANTED.refused(name, f"a folder whose {CONFIG} does not name a model type") from error
    if kind not in THRESHOLDS:
        raise WANTED.refused(name, f"a model of the type {kind!r}; this node knows {', '.join(THRESHOLDS)}")
    return kind


def _check_complete(name: str, info: dict[str, Any]) -> None:
    if missing := sorted(info["missing_keys"]):
        shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise WANTED.refused(name, f"a folder whose weights lack {shown}")
