"""ImageReward's network: BLIP's vision transformer, its text encoder that looks at the picture, and a head.

    h = BERT(tokens; cross-attention to ViT(pixels)),  reward = (head(h[first token]) - mean) / std

Names of the weights and their layout are those of the published file, so that its state dict loads as it is. Widths,
depths and tables are read from it, so smaller models of the kind load too; attention heads are 64 wide in all of them.

References:
    BLIP: Bootstrapping Language-Image Pre-training (Li et al., 2022), arXiv 2201.12086
    ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation (Xu et al., 2023), arXiv 2304.05977
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

HEAD_WIDTH = 64
# Of the rewards of ImageReward's training set; published with the weights' code, not in the weights.
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
# Output widths of the head's layers, by their index in the published sequence (dropout has the others).
HEAD = {"0": 1024, "2": 128, "4": 64, "6": 16, "7": 1}
VISION, TEXT = "blip.visual_encoder.", "blip.text_encoder."


@dataclass(frozen=True)
class Sizes:
    """Sizes of a network, as its weights tell them.

    Attributes:
        image_size: side of the pictures it looks at, in pixels (published: 224).
        patch: side of a patch, in pixels (16).
        vision: width, depth and MLP width of the vision transformer (1024, 24, 4096).
        text: the same of the text encoder (768, 12, 3072).
        words: tokens it knows (30524).
        positions: longest text it knows, in tokens (512).
    """

    image_size: int
    patch: int
    vision: tuple[int, int, int]
    text: tuple[int, int, int]
    words: int
    positions: int

    @classmethod
    def of(cls, sd: dict[str, Tensor]) -> Sizes:
        """Read the sizes from a state dict.

        Raises:
            ValueError: a weight is missing or has an impossible shape; says which.
        """
        vision_width, _, patch, _ = _shape(sd, VISION + "patch_embed.proj.weight", 4)
        patches = _shape(sd, VISION + "pos_embed", 3)[1] - 1
        words, text_width = _shape(sd, TEXT + "embeddings.word_embeddings.weight", 2)
        for name, width in (("patch_embed.proj", vision_width), ("word_embeddings", text_width)):
            if width == 0 or width % HEAD_WIDTH:
                raise ValueError(f"{name} is {width} wide, which is no multiple of {HEAD_WIDTH}")
        return cls(
            image_size=patch * round(max(patches, 0) ** 0.5),
            patch=patch,
            vision=(
                vision_width,
                _depth(sd, VISION + "blocks."),
                _shape(sd, VISION + "blocks.0.mlp.fc1.weight", 2)[0],
            ),
            text=(
                text_width,
                _depth(sd, TEXT + "encoder.layer."),
                _shape(sd, TEXT + "encoder.layer.0.intermediate.dense.weight", 2)[0],
            ),
            words=words,
            positions=_shape(sd, TEXT + "embeddings.position_embeddings.weight", 2)[0],
        )


def _shape(sd: dict[str, Tensor], key: str, rank: int) -> tuple[int, ...]:
    if key not in sd:
        raise ValueError(f"{key} is missing")
    if sd[key].ndim != rank:
        raise ValueError(f"{key} has the shape {tuple(sd[key].shape)}")
    return tuple(sd[key].shape)


def _depth(sd: dict[str, Tensor], prefix: str) -> int:
    """Count the layers; a gap in their numbers shows as a missing weight later."""
    return len({key[len(prefix) :].split(".")[0] for key in sd if key.startswith(prefix)})


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with heads 64 wide: (B, N, W) to (B, M, W) gives (B, N, W)."""
    q, k, v = (x.unflatten(-1, (-1, HEAD_WIDTH)).transpose(1, 2) for x in (query, key, value))
    return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class VisionBlock(nn.Module):
    """A layer of the vision transformer, norms before the parts."""

    def __init__(self, width: int, hidden: int, operations: Any) -> None:
        super().__init__()
        self.norm1 = operations.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": operations.Linear(width, 3 * width), "proj": operations.Linear(width, width)})
        self.norm2 = operations.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": operations.Linear(width, hidden), "fc2": operations.Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn["proj"](attend(*self.attn["qkv"](self.norm1(x)).chunk(3, -1)))
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class VisionTransformer(nn.Module):
    """Pixels (B, 3, S, S), normalized, to one vector for the picture and one for each patch: (B, 1 + patches, W)."""

    def __init__(self, sizes: Sizes, operations: Any) -> None:
        super().__init__()
        width, depth, hidden = sizes.vision
        patches = (sizes.image_size // sizes.patch) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, width))
        self.patch_embed = nn.ModuleDict({"proj": operations.Conv2d(3, width, sizes.patch, stride=sizes.patch)})
        self.blocks = nn.ModuleList(VisionBlock(width, hidden, operations) for _ in range(depth))
        self.norm = operations.LayerNorm(width, eps=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.to(patches).expand(len(patches), -1, -1), patches], 1) + self.pos_embed.to(patches)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class TextAttention(nn.Module):
    """Attention of the text to a context: to itself, or to the picture."""

    def __init__(self, width: int, context_width: int, operations: Any) -> None:
        super().__init__()
        widths = {"query": width, "key": context_width, "value": context_width}
        self.self = nn.ModuleDict({name: operations.Linear(given, width) for name, given in widths.items()})
        self.output = residual(width, width, operations)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        read = attend(self.self["query"](x), self.self["key"](context), self.self["value"](context))
        return self.output["LayerNorm"](self.output["dense"](read) + x)


class TextLayer(nn.Module):
    """A layer of the text encoder: the text looks at itself, then at the picture; norms after the parts."""

    def __init__(self, width: int, hidden: int, vision_width: int, operations: Any) -> None:
        super().__init__()
        self.attention = TextAttention(width, width, operations)
        self.crossattention = TextAttention(width, vision_width, operations)
        self.intermediate = nn.ModuleDict({"dense": operations.Linear(width, hidden)})
        self.output = residual(hidden, width, operations)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        x = self.crossattention(self.attention(x, x), image)
        inner = nn.functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](self.output["dense"](inner) + x)


def residual(given: int, width: int, operations: Any) -> nn.ModuleDict:
    """Return the layer that ends a part of BERT's and the norm of its sum with the part's input."""
    return nn.ModuleDict({"dense": operations.Linear(given, width), "LayerNorm": operations.LayerNorm(width, eps=1e-12)})


class TextEncoder(nn.Module):
    """BERT with cross-attention: tokens (1, N) and pictures (B, M, W_vision) to (B, N, W)."""

    def __init__(self, sizes: Sizes, operations: Any) -> None:
        super().__init__()
        width, depth, hidden = sizes.text
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": operations.Embedding(sizes.words, width),
                "position_embeddings": operations.Embedding(sizes.positions, width),
                "LayerNorm": operations.LayerNorm(width, eps=1e-12),
            }
        )
        layers = (TextLayer(width, hidden, sizes.vision[0], operations) for _ in range(depth))
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, tokens: Tensor, image: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embeddings["word_embeddings"](tokens) + self.embeddings["position_embeddings"](places)
        x = self.embeddings["LayerNorm"](x.to(image)).expand(len(image), -1, -1)
        for layer in self.encoder["layer"].children():
            x = layer(x, image)
        return x


class ImageRewardNetwork(nn.Module):
    """The whole network.

    Attributes:
        sizes: its sizes.
    """

    def __init__(self, sizes: Sizes, operations: Any = nn) -> None:
        """Build the network.

        Args:
            sizes: of its parts.
            operations: where the layers that have weights come from: `torch.nn`, for weights in float32, or classes
                of the same names that cast their weights to what they are given, for any other type.
        """
        super().__init__()
        self.sizes = sizes
        encoders = {"visual_encoder": VisionTransformer(sizes, operations), "text_encoder": TextEncoder(sizes, operations)}
        self.blip = nn.ModuleDict(encoders)
        widths = [sizes.text[0], *HEAD.values()]
        layers = {name: operations.Linear(*pair) for name, pair in zip(HEAD, pairwise(widths), strict=True)}
        self.mlp = nn.ModuleDict({"layers": nn.ModuleDict(layers)})

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Score pictures.

        The text needs no padding, unlike in the published code: there, its attention masks the padding out.

        Args:
            pixels: (B, 3, S, S), normalized.
            tokens: (1, N), int64, without padding.

        Returns:
            (B,) float32.
        """
        image = self.blip["visual_encoder"](pixels)
        reward = self.blip["text_encoder"](tokens, image)[:, 0].float()  # in half precision, close scores would tie
        for layer in self.mlp["layers"].children():
            reward = layer(reward)
        return (reward[:, 0] - REWARD_MEAN) / REWARD_STD


def weight_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's weights by their names."""
    with torch.device("meta"):
        return {name: tuple(weight.shape) for name, weight in ImageRewardNetwork(sizes).state_dict().items()}


def load_network(sizes: Sizes, sd: dict[str, Tensor], operations: Any = nn) -> ImageRewardNetwork:
    """Build a network around weights, whose names and shapes were checked; what else the file holds is left out."""
    with torch.device("meta"):  # the weights are taken, not copied
        network = ImageRewardNetwork(sizes, operations)
    network.load_state_dict({name: sd[name] for name in weight_shapes(sizes)}, assign=True)
    return network.eval().requires_grad_(False)
