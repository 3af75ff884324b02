"""Image classifiers in Hugging Face folders: loaded by transformers, without the hub and without code of theirs."""

from __future__ import annotations

import json
import os
from typing import Any

from torch import nn

from ..verifiers.processor import Processor, read_processor
from .weights import HeldModel, Wanted, held

WEIGHTS, SHARDS, PREPROCESSOR = "model.safetensors", "model.safetensors.index.json", "preprocessor_config.json"


class HeldClassifier(HeldModel):
    """An image classifier in a model patcher.

    Attributes:
        labels: names of its classes, in the order of its logits.
        exclusive: whether the probabilities of the classes sum to 1.
        prepare: from images to what it takes.
    """

    def __init__(self, module: nn.Module, prepare: Processor) -> None:
        """Hold a transformers image classifier and what its folder says of pictures."""
        super().__init__(module)
        names = module.config.id2label
        self.labels = tuple(str(names[index]) for index in range(module.config.num_labels))
        self.exclusive = getattr(module.config, "problem_type", None) != "multi_label_classification"
        self.prepare = prepare


def load_classifier(wanted: Wanted, name: str, path: str) -> HeldClassifier:
    """Load the image classifier of a Hugging Face folder.

    Args:
        wanted: for messages.
        name: the folder, as the node's input names it.
        path: the folder.

    Raises:
        ValueError: a file is missing or damaged, or it is another kind of model.
    """
    return held("classifier", path, lambda: _build(wanted, name, path))


def _build(wanted: Wanted, name: str, path: str) -> HeldClassifier:
    there = os.listdir(path)
    if WEIGHTS not in there and SHARDS not in there:
        raise wanted.refused(name, f"a folder without {WEIGHTS} (weights in pickles are not read)")
    if PREPROCESSOR not in there:
        raise wanted.refused(name, f"a folder without {PREPROCESSOR}, which says how pictures are prepared")
    try:
        with open(os.path.join(path, PREPROCESSOR), encoding="utf-8") as file:
            prepare = read_processor(json.load(file))
    except json.JSONDecodeError as error:
        raise wanted.refused(name, f"a folder whose {PREPROCESSOR} is no JSON: {error}") from error
    except ValueError as error:
        raise wanted.refused(name, str(error)) from error
    return HeldClassifier(_read(wanted, name, path), prepare)


def _read(wanted: Wanted, name: str, path: str) -> nn.Module:
    from transformers import AutoModelForImageClassification

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    try:
        module, found = AutoModelForImageClassification.from_pretrained(path, output_loading_info=True, **options)
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise wanted.refused(name, f"a folder that transformers cannot read as an image classifier: {said}") from error
    missing = sorted({*found["missing_keys"], *(str(key) for key in found["mismatched_keys"])})
    if missing:  # transformers would give them random numbers
        shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise wanted.refused(name, f"weights without a classifier's head, or of another model (missing: {shown})")
    return module
