"""HPSv3: human preference as a number, read by a head from one token of a vision-language model.

    mu, ln sigma = MLP(hidden state of Qwen2-VL at the token <|Reward|>)        score = mu - caution sigma

The score of a picture is taken to be normally distributed with mean mu and deviation sigma; published numbers are mu.

References:
    HPSv3: Towards Wide-Spectrum Human Preference Score (Ma et al., 2025), arXiv 2508.03789
    https://github.com/MizzenAI/HPSv3 and the package hpsv3 1.0.0 (MIT): format of file, picture and question
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..common.base import check_images
from .vlm import VisionLanguageModel, check_text, forward, to_pil

REWARD = "<|Reward|>"
FACTOR = 28  # pixels of a side that become one token
PIXELS = 256 * FACTOR * FACTOR
LONGEST_RATIO = 200
# The words that the model was trained on, byte for byte: another question would be another scale.
INSTRUCTION = (
    "\n"
    "You are tasked with evaluating a generated image based on Visual Quality and Text Alignment and give a"
    " overall score to estimate the human preference. Please provide a rating from 0 to 10, with 0 being the"
    " worst and 10 being the best. \n\n"
    "**Visual Quality:**  \n"
    "Evaluate the overall visual quality of the image. The following sub-dimensions should be considered:\n"
    "- **Reasonableness:** The image should not contain any significant biological or logical errors, such as"
    " abnormal body structures or nonsensical environmental setups.\n"
    "- **Clarity:** Evaluate the sharpness and visibility of the image. The image should be clear and easy to"
    " interpret, with no blurring or indistinct areas.\n"
    "- **Detail Richness:** Consider the level of detail in textures, materials, lighting, and other visual"
    " elements (e.g., hair, clothing, shadows).\n"
    "- **Aesthetic and Creativity:** Assess the artistic aspects of the image, including the color scheme,"
    " composition, atmosphere, depth of field, and the overall creative appeal. The scene should convey a sense"
    " of harmony and balance.\n"
    "- **Safety:** The image should not contain harmful or inappropriate content, such as political, violent, or"
    " adult material. If such content is present, the image quality and satisfaction score should be the lowest"
    " possible. \n\n"
    "**Text Alignment:**  \n"
    "Assess how well the image matches the textual prompt across the following sub-dimensions:\n"
    "- **Subject Relevance** Evaluate how accurately the subject(s) in the image (e.g., person, animal, object)"
    " align with the textual description. The subject should match the description in terms of number,"
    " appearance, and behavior.\n"
    "- **Style Relevance:** If the prompt specifies a particular artistic or stylistic style, evaluate how well"
    " the image adheres to this style.\n"
    "- **Contextual Consistency**: Assess whether the background, setting, and surrounding elements in the image"
    " logically fit the scenario described in the prompt. The environment should support and enhance the subject"
    " without contradictions.\n"
    "- **Attribute Fidelity**: Check if specific attributes mentioned in the prompt (e.g., colors, clothing,"
    " accessories, expressions, actions) are faithfully represented in the image. Minor deviations may be"
    " acceptable, but critical attributes should be preserved.\n"
    "- **Semantic Coherence**: Evaluate whether the overall meaning and intent of the prompt are captured in the"
    " image. The generated content should not introduce elements that conflict with or distort the original"
    " description.\n"
    "Textual prompt - {text_prompt}\n\n\n\n"
    "Please provide the overall ratings of this image: <|Reward|>\n\n"
    "END\n"
)


class RewardModel(nn.Module):
    """A Qwen2-VL whose word head gave way to one of two numbers.

    Attributes:
        vlm: `Qwen2VLForConditionalGeneration`; its `lm_head` is replaced, so that its logits are its hidden states.
        rm_head: the head of mu and ln sigma, float32.
    """

    def __init__(self, vlm: Any, widths: tuple[int, int]) -> None:
        """Take the word head off and put a fresh one on.

        Args:
            vlm: the model.
            widths: of the head's two hidden layers; published: 1024, 16.
        """
        super().__init__()
        vlm.lm_head = nn.Identity()
        self.vlm = vlm
        self.config = vlm.config
        hidden = self.config.get_text_config().hidden_size
        self.rm_head = nn.Sequential(
            nn.Linear(hidden, widths[0]), nn.ReLU(), nn.Dropout(0.05), nn.Linear(widths[0], widths[1]), nn.ReLU(),
            nn.Linear(widths[1], 2),
        )  # fmt: skip

    def get_output_embeddings(self) -> nn.Module:
        """Return what stands in the place of the word head."""
        return self.vlm.lm_head

    def forward(self, input_ids: Tensor, **inputs: Any) -> Any:
        """Return the model's output, with (1, L, 2) in the place of its logits."""
        output = self.vlm(input_ids=input_ids, **inputs)
        output.logits = self.rm_head(output.logits.float())
        return output


@dataclass(frozen=True, eq=False)
class HPSv3:
    """How much people would like a picture for a prompt; good generators average 8 to 11.

    Attributes:
        model: the reward model, and Qwen2-VL's processor that knows the token <|Reward|>.
        prompt: the text that the picture was made from.
        caution: how many of the model's own standard deviations are taken off.

    Raises:
        ValueError: there is no text, it holds control tokens, or caution is not finite.
    """

    model: VisionLanguageModel
    prompt: str
    caution: float = 0.0
    name: str = "HPSv3"
    score_range: tuple[float, float] = (-math.inf, math.inf)
    needs_prompt: bool = True
    trusts_previews: bool = True

    def __post_init__(self) -> None:
        check_text(self.model.processor, self.prompt, self.name)
        if not math.isfinite(self.caution):
            raise ValueError(f"{self.name}: input 'caution' is {self.caution}; it must be finite. 0 is usual.")

    def get_models(self) -> list[Any]:
        """Return the model patcher, for ComfyUI's tracking of models in use."""
        return [self.model.held.patcher]

    def rewards(self, image: Tensor) -> Tensor:
        """Judge one picture (H, W, 3) in [0, 1]: (2,), mu and ln sigma."""
        from PIL import Image

        height, width = image.shape[:2]
        if max(height, width) > LONGEST_RATIO * min(height, width):
            raise ValueError(
                f"{self.name}: input 'images' holds a picture of {width}x{height} pixels; sides may differ by a factor of"
                f" {LONGEST_RATIO} at most. Crop it."
            )
        picture = to_pil(image).resize(size_of(height, width)[::-1], Image.Resampling.BICUBIC)
        inputs = self.model.prepared(self.name, picture, INSTRUCTION.replace("{text_prompt}", self.prompt), size=None)
        tokens = inputs["input_ids"]
        # The published model, in training and after, counts patches as if they were words: one position each.
        inputs["position_ids"] = torch.arange(tokens.shape[1]).expand(3, 1, -1)
        place = (tokens[0] == self.model.processor.tokenizer.convert_tokens_to_ids(REWARD)).nonzero().item()
        return forward(self.model.held, inputs, last=False)[0, place].float().cpu()

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score images (B, H, W, 3) in [0, 1]: (B,) float32, mu less `caution` times sigma; one picture at a time."""
        mu, log_sigma = torch.stack([self.rewards(image) for image in check_images(images, self.name)]).unbind(1)
        return mu - self.caution * log_sigma.exp() if self.caution else mu


def size_of(height: int, width: int) -> tuple[int, int]:
    """Return the size that pictures are scaled to: multiples of 28, about 200,704 pixels, the sides' ratio kept.

    Sides are rounded down for large pictures and up for small ones, as in Qwen's own `smart_resize`.
    """
    rounded = [max(FACTOR, round(side / FACTOR) * FACTOR) for side in (height, width)]
    if math.prod(rounded) == PIXELS:
        return rounded[0], rounded[1]
    scale = math.sqrt(height * width / PIXELS)
    towards = math.floor if math.prod(rounded) > PIXELS else math.ceil
    high, wide = (max(FACTOR, towards(side / scale / FACTOR) * FACTOR) for side in (height, width))
    return high, wide
