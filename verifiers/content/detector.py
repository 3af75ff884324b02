"""Open-vocabulary object detectors of transformers: boxes of whatever a text names.

OWL-ViT and OWLv2 score each box against each query by itself. Grounding DINO reads all names in one text, "cat. dog.",
and scores each box against each of its tokens; a name's score is the best of its tokens. So do MM-Grounding-DINO and LLMDet,
which are one network trained otherwise.

References:
    Simple Open-Vocabulary Object Detection with Vision Transformers (Minderer et al., 2022), arXiv 2205.06230: OWL-ViT
    Scaling Open-Vocabulary Object Detection (Minderer et al., 2023), arXiv 2306.09683: OWLv2
    Grounding DINO: Marrying DINO with Grounded Pre-Training (Liu et al., 2023), arXiv 2303.05499
    An Open and Comprehensive Pipeline for Unified Object Grounding and Detection (Zhao et al., 2024), arXiv 2401.02361:
        MM-Grounding-DINO
    LLMDet: Learning Strong Open-Vocabulary Object Detectors under LLM Supervision (Fu et al., 2025), arXiv 2501.18954
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..common.base import quoted
from ..common.preprocess import in_slices

# Confidence above which transformers' own post-processing takes a box to be one.
THRESHOLDS = {"owlvit": 0.1, "owlv2": 0.1, "grounding-dino": 0.25, "mm-grounding-dino": 0.25}
BY_TOKENS = ("grounding-dino", "mm-grounding-dino")  # LLMDet's type is the latter
QUERY = "a photo of a {}"
ROWS = 4  # pictures at a time
MEMORY = 3e9  # bytes that one picture takes in a large model: attention among 5185 patches


@dataclass(frozen=True, eq=False)
class Detector:
    """A detector and what prepares its inputs.

    Attributes:
        model: holds the `AutoModelForZeroShotObjectDetection` (nodes' `HeldModel`: called with what to do with it).
        processor: its `AutoProcessor`.
        kind: the model's type, a key of `THRESHOLDS`.
    """

    model: Any
    processor: Any
    kind: str

    @property
    def by_tokens(self) -> bool:
        return self.kind in BY_TOKENS

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise a ValueError if a name, or all names together, are longer than the model reads."""
        texts = [". ".join(labels) + "."] if self.by_tokens else [QUERY.format(label) for label in labels]
        config = self.model.module.config
        most = config.max_text_len if self.by_tokens else config.text_config.max_position_embeddings
        for text in texts:
            used = len(self.processor.tokenizer(text)["input_ids"])
            if used > most:
                raise ValueError(f"{quoted(text)} takes {used} tokens, and the model reads {most}; use fewer or shorter names")

    def detect(self, images: Tensor, labels: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """Look for things.

        Args:
            images: (B, H, W, 3) in [0, 1].
            labels: their names, L of them.

        Returns:
            For each image all boxes (n, 4), sides in pixels, and their confidences (n, L) in [0, 1]; on the CPU.
        """

        def look(part: Tensor) -> Tensor:
            return self.model(lambda module, device: self._run(module, device, part, list(labels)), MEMORY * len(part))

        return [(row[:, :4], row[:, 4:]) for row in in_slices(look, images, ROWS)]

    def _run(self, module: Any, device: torch.device, images: Tensor, labels: list[str]) -> Tensor:
        """Return boxes and confidences (B, n, 4 + L) of images, on the CPU."""
        height, width = images.shape[1:3]
        if self.kind == "owlv2":  # wants a black square; older versions of transformers fill up with grey
            images = torch.nn.functional.pad(images, (0, 0, 0, max(0, height - width), 0, max(0, width - height)))
            height = width = max(height, width)
        pictures = list((255 * images.float()).round().to(torch.uint8).cpu().numpy())
        if self.by_tokens:
            text = [". ".join(labels) + "."] * len(images)
            inputs = self.processor(images=pictures, text=text, return_tensors="pt")
        else:
            text = [[QUERY.format(label) for label in labels]] * len(images)
            inputs = self.processor(images=pictures, text=text, return_tensors="pt", padding="max_length")
        inputs = {k: v.to(device, self.model.dtype if v.is_floating_point() else v.dtype) for k, v in inputs.items()}
        out = module(**inputs)
        scores = out.logits.float().sigmoid().cpu()
        if self.by_tokens:
            scores = torch.stack([scores[..., at].amax(-1) for at in self._places(inputs["input_ids"][0], len(labels))], -1)
        boxes = out.pred_boxes.float().cpu()
        corners = torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)
        return torch.cat([corners * torch.tensor([width, height] * 2), scores], -1)

    def _places(self, ids: Tensor, count: int) -> list[list[int]]:
        """Return for each name the places of its tokens in a text like "cat. dog."; full stops and marks are no name's."""
        tokenizer = self.processor.tokenizer
        stop, marks = tokenizer.convert_tokens_to_ids("."), set(tokenizer.all_special_ids)
        places: list[list[int]] = [[]]
        for place, token in enumerate(ids.tolist()):
            if token == stop:
                places.append([])
            elif token not in marks:
                places[-1].append(place)
        return places[:count]
