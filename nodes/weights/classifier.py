"""Hugging Face folders of image classifiers."""

from __future__ import annotations

from typing import Any

from ...verifiers.common.image_processor import Processor, read_processor
from .files import HeldModel, Wanted, held, repository_path
from .transformers import PREPROCESSOR, import_transformers, read_config, read_model, read_settings


class HeldClassifier(HeldModel):
    """An image classifier in a model patcher.

    Attributes:
        labels: names of its classes, in the order of its logits.
        exclusive: whether the probabilities of the classes sum to 1.
        prepare: from images to what it takes.
    """

    def __init__(self, module: Any, prepare: Processor) -> None:
        """Hold a transformers image classifier and what its folder says of pictures."""
        super().__init__(module)
        names = module.config.id2label
        self.labels = tuple(str(names[index]) for index in range(module.config.num_labels))
        self.exclusive = getattr(module.config, "problem_type", None) != "multi_label_classification"
        self.prepare = prepare


def load_classifier(wanted: Wanted, name: str) -> HeldClassifier:
    """Load an image classifier; nodes that name the same folder share its weights.

    Raises:
        ValueError: a file is missing or damaged, or it is another kind of model.
    """
    path = repository_path(wanted, name)
    return held("classifier", path, lambda: _build(wanted, name, path))


def _build(wanted: Wanted, name: str, path: str) -> HeldClassifier:
    config, pictures = read_config(wanted, name, path), read_settings(wanted, name, path, PREPROCESSOR)
    try:
        prepare = read_processor(pictures)
    except ValueError as error:
        raise wanted.refused(name, str(error)) from error
    load = import_transformers(wanted).AutoModelForImageClassification.from_pretrained
    return HeldClassifier(read_model(wanted, name, load, path, "an image classifier", config=config), prepare)
