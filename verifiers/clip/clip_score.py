"""CLIP score: how well an image fits a text, as the cosine of their CLIP embeddings.

    score = 100 cos(E_image, E_text)

This is CLIPScore on the 0 to 100 scale in common use, but for its floor: max(100 cos, 0) ties everything
below zero, which a search could not climb. The paper's own scale is 2.5 max(cos, 0), of the text with "A
photo depicts" before it; put that into the prompt where published numbers are to be met.

The two encoders are ComfyUI's own CLIP and CLIP_VISION objects, used by their public methods only, so
ComfyUI loads and unloads them as it does for any node.

References:
    CLIPScore: A Reference-free Evaluation Metric for Image Captioning (Hessel et al., 2021), arXiv 2104.08718
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..common.base import BATCH, check_images, quoted
from ..common.features import image_features
from ..common.text_repair import clip_text

# ComfyUI reads "embedding:name" as a file to load. CLIP's tokenizer lowers all text, so one capital disarms
# the word and leaves its tokens as they are. It takes a backslash before a bracket away, but the last one only.
EMBEDDING, ESCAPE = re.compile(r"\bembedding:"), re.compile(r"\\(?=[()])")
# Inner encoders, by the name of their tokens, whose pooled vector is the one that a CLIP object returns.
POOLED_OF = {frozenset({"l", "g"}): "g"}


def check_prompt(prompt: str, name: str) -> None:
    """Raise a ValueError in the name of a verifier unless there is a text to compare images with."""
    if not prompt.strip():
        raise ValueError(
            f"{name}: input 'prompt' is {quoted(prompt)}; there is no text to compare the images"
            " with. Write what the image should show, or connect the text that your prompt encoder gets."
        )


@dataclass(frozen=True, eq=False)
class ClipScore:
    """Cosine of the CLIP embeddings of image and prompt, times a scale.

    Attributes:
        clip: ComfyUI's CLIP object (`tokenize`, `encode_from_tokens`).
        clip_vision: ComfyUI's CLIP_VISION object (`encode_image`), of the same CLIP model.
        prompt: The text; its quotes, widths and entities are made plain, as OpenAI's tokenizer does, and beyond the
            encoder's length (77 tokens) it is cut.
        scale: What the cosine is multiplied with.
        notes: What was assumed of the model, in words; the report tells it.
        network: What is known of the model beside its weights, where it is not what those would make one assume.

    Raises:
        ValueError: If the prompt is empty.
    """

    clip: Any
    clip_vision: Any
    prompt: str
    name: str = "CLIP score"
    scale: float = 100.0
    needs_prompt: bool = True
    trusts_previews: bool = True
    notes: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    batch_size = BATCH

    def __post_init__(self) -> None:
        check_prompt(self.prompt, self.name)

    @property
    def score_range(self) -> tuple[float, float]:
        return -self.scale, self.scale

    @property
    def text(self) -> str:
        """What the published tokenizer reads of the prompt."""
        return clip_text(self.prompt)

    @property
    def score_version(self) -> tuple[str, ...]:
        """What sets its scores apart from those in journals of before there were such names; empty where they are the same."""
        return self.network if _same_tokens(self.text, self.prompt) else ("text", *self.network)

    def get_models(self) -> list[Any]:
        """Return the two model patchers, for ComfyUI's tracking of models in use."""
        return [self.clip.patcher, self.clip_vision.patcher]

    @cached_property
    def text_features(self) -> Tensor:
        """The prompt's embedding (D,), float32 on the CPU, of length 1; computed once."""
        tokens = _literal_tokens(self.clip, self.text)
        _check_encoder(self.clip, frozenset(tokens), self.name)
        _, pooled = self.clip.encode_from_tokens(tokens, return_pooled=True)
        if pooled is None:
            raise ValueError(f"{self.name}: input 'clip' gives no pooled vector, so it is no CLIP. {_REMEDY}")
        return torch.nn.functional.normalize(pooled.float().cpu()[0], dim=-1)

    def image_features(self, images: Tensor) -> Tensor:
        """Embed images (B, H, W, 3) in [0, 1]: (B, D), float32 on the CPU, of length 1."""
        if not _is_projected(self.clip_vision):
            raise ValueError(
                f"{self.name}: input 'clip_vision' holds no CLIP (DINOv2 or SigLIP, perhaps), or one without its projection:"
                f" no text can be compared with what it gives. {_REMEDY}"
            )
        rows = self.embed(images)
        if rows.shape[1] != len(self.text_features):
            raise ValueError(
                f"{self.name}: 'clip_vision' gives embeddings of {rows.shape[1]} values, 'clip' of"
                f" {len(self.text_features)}; they are not of one CLIP model. {_REMEDY}"
            )
        return rows

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, H, W, 3) by the vision encoder: (B, D), float32 on the CPU, of length 1."""
        return image_features(self.clip_vision, images)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, the scaled cosine with the prompt."""
        images = check_images(images, self.name)
        return self.scale * (self.text_features * self.image_features(images)).sum(-1)


_REMEDY = (
    "Connect the text and the vision encoder of one CLIP model (H with H, bigG or SDXL's CLIP with bigG), or"
    " leave both unconnected and choose a file that holds both as 'model_name'."
)


def _literal_tokens(clip: Any, text: str) -> dict[str, list]:
    """Tokenize text as it stands, no weights and no embeddings, and cut it to the encoder's length.

    As one stretch of text, a prompt that is too long is split into rows exactly where Hugging Face
    truncates, with the end token last; the first row is what it keeps.
    """
    literal = ESCAPE.sub(r"\\\\", EMBEDDING.sub(lambda word: word.group().capitalize(), text))
    tokens = clip.tokenize(literal, disable_weights=True)
    return {encoder: rows[:1] for encoder, rows in tokens.items()}


def _same_tokens(text: str, prompt: str) -> bool:
    """Whether what is read of a prompt gives the tokens that it gave as it stands, without the backslashes of brackets."""
    before = unicodedata.normalize("NFC", ESCAPE.sub("", prompt))
    return " ".join(before.split()).lower() == " ".join(text.split()).lower()


def _is_projected(clip_vision: Any) -> bool:
    """Whether image embeddings are CLIP's projections, as far as is known; core's other encoders have none."""
    model = getattr(clip_vision, "model", None)
    return model is None or isinstance(getattr(model, "visual_projection", None), torch.nn.Linear)


def _check_encoder(clip: Any, encoders: frozenset[str], name: str) -> None:
    """Refuse a CLIP object whose pooled vector is not the projection that lives in the images' space."""
    encoder = next(iter(encoders)) if len(encoders) == 1 else POOLED_OF.get(encoders)
    if encoder is None:
        raise ValueError(
            f"{name}: input 'clip' holds the encoders {', '.join(sorted(encoders))}, whose pooled vector has"
            f" no counterpart among images. {_REMEDY}"
        )
    model = getattr(clip.cond_stage_model, f"clip_{encoder}", None)
    if not getattr(model, "return_projected_pooled", True):
        raise ValueError(
            f"{name}: input 'clip' gives its text vector without CLIP's text projection (an SD 1.5 checkpoint"
            " has none, and CLIP-L loaded as a text encoder does not apply it), which no image can be"
            f" compared with. {_REMEDY}"
        )
