"""Supervised verifiers: how sure a classifier is of the class that was asked for.

    class probability   softmax over the classes, of an image classifier: the paper's oracle for the Inception Score
    class logit         the same before the softmax: its supervised verifiers (CLIP zero-shot, DINO with a linear head)

References:
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
    Learning Transferable Visual Models From Natural Language Supervision (Radford et al., 2021), arXiv 2103.00020
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

PROBABILITY, LOGIT = "probability", "logit"
TEMPLATES = ("a photo of a {}.",)


class Classifier(Protocol):
    """Whatever gives one number for each class.

    Attributes:
        names: The classes' names, in the order of the logits.
    """

    names: Sequence[str]

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B, C), float32 on the CPU, of images (B, H, W, 3) in [0, 1]."""
        ...


class ImageClassifier:
    """A transformers image classifier in a folder of the user's (ViT, ConvNeXt, DINOv2 with a linear head, ...)."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Load it; nothing is fetched and no code of the folder is run.

        Args:
            folder: Hugging Face folder with config.json, model.safetensors and preprocessor_config.json.
            device: Where it runs.
        """
        from transformers import AutoModelForImageClassification

        options = {"local_files_only": True, "trust_remote_code": False}
        self._model = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True, **options)
        self._model.to(device).eval()
        self._prepare = _processor(folder)
        labels = self._model.config.id2label
        self.names = [str(labels[index]) for index in range(len(labels))]

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B, C), float32 on the CPU, of images (B, H, W, 3) in [0, 1]."""
        with torch.inference_mode():
            return self._model(pixel_values=self._prepare(images).to(self._model.device)).logits.float().cpu()


class ZeroShotClip:
    """A transformers CLIPModel in a folder as a classifier: cosines with the classes' texts, times its scale."""

    def __init__(
        self, folder: Path, names: Sequence[str], templates: Sequence[str] = TEMPLATES, device: str = "cpu"
    ) -> None:  # fmt: skip
        """Load it and embed the classes; nothing is fetched.

        Args:
            folder: Hugging Face folder with model, tokenizer and preprocessor.
            names: The classes.
            templates: Texts with "{}" where the class belongs; a class is the mean of its texts' embeddings.
            device: Where it runs.
        """
        from transformers import AutoTokenizer, CLIPModel

        bad = [template for template in templates if "{}" not in template]
        if bad or not templates:
            raise ValueError(f"--template {bad}: expected texts with {{}} where the class belongs")
        self.names = list(names)
        self._model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).to(device).eval()
        self._prepare = _processor(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        with torch.inference_mode():
            self._classes = torch.stack([self._embed(tokenizer, name, templates) for name in self.names])

    def _embed(self, tokenizer: Any, name: str, templates: Sequence[str]) -> Tensor:
        texts = [template.replace("{}", name) for template in templates]
        length = self._model.config.text_config.max_position_embeddings
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt").to(self._model.device)
        features = torch.nn.functional.normalize(_pooled(self._model.get_text_features(**tokens)), dim=-1)
        return torch.nn.functional.normalize(features.mean(0), dim=-1)

    def logits(self, images: Tensor) -> Tensor:
        """Return logits (B, C), float32 on the CPU, of images (B, H, W, 3) in [0, 1]."""
        with torch.inference_mode():
            pixels = self._prepare(images).to(self._model.device)
            features = torch.nn.functional.normalize(_pooled(self._model.get_image_features(pixel_values=pixels)), dim=-1)
            return (self._model.logit_scale.exp() * features @ self._classes.T).float().cpu()


def _pooled(found: Any) -> Tensor:
    """Return the embedding: transformers 5 wraps it in an output object."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _processor(folder: Path) -> Any:
    """Return a function from images (B, H, W, 3) in [0, 1] to the model's pixel values."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)

    def prepare(images: Tensor) -> Tensor:
        rows = list(images.float().cpu().permute(0, 3, 1, 2))  # BHWC -> CHW each
        return processor(images=rows, do_rescale=False, return_tensors="pt")["pixel_values"]

    return prepare


def class_index(classifier: Classifier, value: Any) -> int:
    """Return the place of a class among the logits.

    Args:
        classifier: Knows its classes.
        value: A name, or a place as a number or its digits.

    Raises:
        ValueError: If it is none of them.
    """
    text = str(value).strip()
    if text in classifier.names:
        return list(classifier.names).index(text)
    if text.isdigit() and int(text) < len(classifier.names):
        return int(text)
    some = ", ".join(list(classifier.names)[:5])
    raise ValueError(f"class {value!r}: the classifier has {len(classifier.names)} classes, such as {some}; none is this")


@dataclass(frozen=True, eq=False)
class ClassScore:
    """A verifier: the probability or the logit of one class.

    Attributes:
        classifier: Gives the logits.
        label: The class' place among them.
        output: "probability" or "logit".
    """

    classifier: Classifier
    label: int
    output: str = PROBABILITY
    needs_prompt: bool = False
    prompt: str = ""
    trusts_previews: bool = True

    def __post_init__(self) -> None:
        if self.output not in (PROBABILITY, LOGIT):
            raise ValueError(f"output {self.output!r}: expected {PROBABILITY} or {LOGIT}")

    @property
    def name(self) -> str:
        """As shown in the report."""
        return f"class {self.output}"

    @property
    def score_range(self) -> tuple[float, float]:
        """Lowest and highest possible score."""
        return (0.0, 1.0) if self.output == PROBABILITY else (-float("inf"), float("inf"))

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32 on the CPU, higher is better."""
        logits = self.classifier.logits(images)
        return (logits.softmax(1) if self.output == PROBABILITY else logits)[:, self.label].float()
