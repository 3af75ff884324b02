"""A folder with an open-vocabulary detector, loaded by transformers."""

from __future__ import annotations

import os

import torch

from ...verifiers.content.detector import THRESHOLDS, Detector
from .files import FOLDER, HeldModel, Wanted, held, repository_path
from .transformers import import_transformers, load_processor, read_config, read_model

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
)


def load_detector(name: str) -> Detector:
    """Load a detector by the name of its folder.

    Raises:
        ValueError: it is not there, not of a known kind, or its files are damaged or lack something.
    """
    path = repository_path(WANTED, name)
    return held("detector", path, lambda: _build(name, path))


def _build(name: str, path: str) -> Detector:
    transformers, config = import_transformers(WANTED), read_config(WANTED, name, path)
    if config.model_type not in THRESHOLDS:
        raise WANTED.refused(name, f"a model of the type {config.model_type!r}; this node knows {', '.join(THRESHOLDS)}")
    for files in NEEDED:
        if not any(os.path.isfile(os.path.join(path, file)) for file in files):
            raise WANTED.refused(name, f"a folder without {' or '.join(files)} ({path})")
    if hasattr(config, "disable_custom_kernels"):
        config.disable_custom_kernels = True  # else Grounding DINO may try to compile one
    processor = load_processor(WANTED, name, path)
    load = transformers.AutoModelForZeroShotObjectDetection.from_pretrained
    module = read_model(WANTED, name, load, path, "a detector", config=config)
    # half precision is not safe in Grounding DINO
    return Detector(HeldModel(module, torch.float32), processor, config.model_type)
