"""What the example graphs are made of, and the pieces that many of them have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .files import CLIP, PICK_SCORE, SD15, ModelFile

PROMPT = "a red fox sitting to the left of a blue wooden chair, in a sunlit garden, photograph"
NEGATIVE = "blurry, deformed, text, watermark"
SEED = 6
PLOT_OUTPUT, RECIPE_OUTPUT, REPORT_OUTPUT = 8, 6, 7
RUN = {"steps": 20, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
MODEL, PROMPTS, JUDGE, SEARCH, RESULT = "#3f789e", "#8AA", "#88A", "#8A8", "#b58b2a"  # the page's own group colors

Link = tuple[str, int]


@dataclass(frozen=True)
class Node:
    """One node: its type, values of widgets, and links as {input: (key of a node, output's index)}."""

    key: str
    type: str
    values: dict[str, Any] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    size: tuple[int, int] = (300, 0)
    title: str = ""
    models: tuple[ModelFile, ...] = ()
    collapsed: bool = False


@dataclass(frozen=True)
class Group:
    """A titled box: columns of nodes, left to right. Without a title it is no box."""

    title: str
    color: str
    columns: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Graph:
    """A workflow: columns of groups, left to right."""

    name: str
    columns: tuple[tuple[Group, ...], ...]

    def nodes(self) -> list[Node]:
        """Return its nodes in the order of their ids, which count from 1."""
        return [node for column in self.columns for group in column for inner in group.columns for node in inner]


def note(text: str, size: tuple[int, int]) -> Group:
    """A box of text for the user."""
    return Group("", "", ((Node("note", "MarkdownNote", {"": text.strip()}, size=size, title="Read me"),),))


def checkpoint(file: ModelFile = SD15) -> Node:
    return Node("ckpt", "CheckpointLoaderSimple", {"ckpt_name": file["name"]}, models=(file,), size=(310, 0))


def unet(file: ModelFile) -> Node:
    return Node("unet", "UNETLoader", {"unet_name": file["name"], "weight_dtype": "default"}, models=(file,), size=(310, 0))


def text_encoder(file: ModelFile, kind: str) -> Node:
    return Node("clip", "CLIPLoader", {"clip_name": file["name"], "type": kind}, models=(file,), size=(310, 0))


def vae(file: ModelFile) -> Node:
    return Node("vae", "VAELoader", {"vae_name": file["name"]}, models=(file,), size=(310, 0))


def prompt_and_positive(clip: Link = ("ckpt", 1), text: str = PROMPT) -> tuple[Node, Node]:
    return (
        Node("prompt", "PrimitiveStringMultiline", {"value": text}, size=(310, 110), title="Prompt"),
        Node("positive", "CLIPTextEncode", {}, {"clip": clip, "text": ("prompt", 0)}, (310, 90), "Positive"),
    )


def prompts(clip: Link = ("ckpt", 1), text: str = PROMPT, negative: str = NEGATIVE) -> tuple[Node, ...]:
    return (
        *prompt_and_positive(clip, text),
        Node("negative", "CLIPTextEncode", {"text": negative}, {"clip": clip}, (310, 90), "Negative"),
    )


def zeroed_negative() -> Node:
    """A negative for runs without guidance: it has to be connected and counts for nothing."""
    return Node("negative", "ConditioningZeroOut", {}, {"conditioning": ("positive", 0)}, (310, 0), "Negative: unused at cfg 1")


def latent(batch: int = 1, side: int = 512, type: str = "EmptyLatentImage") -> Node:
    return Node("latent", type, {"width": side, "height": side, "batch_size": batch}, size=(310, 0))


def run(noise_width: int, model: Link = ("ckpt", 0), **settings: Any) -> tuple[Node, Node, Node]:
    """Return the noise, sampler and sigmas that SamplerCustomAdvanced takes."""
    settings = {**RUN, **settings}
    size = (noise_width, 0)
    return (
        Node("noise", "RandomNoise", {"noise_seed": SEED, "control_after_generate": "fixed"}, size=size),
        Node("sampler", "KSamplerSelect", {"sampler_name": settings["sampler_name"]}, size=size),
        Node("sigmas", "BasicScheduler", {"scheduler": settings["scheduler"], "steps": settings["steps"], "denoise": 1.0},
             {"model": model}, size),
    )  # fmt: skip


def clip_score() -> Node:
    values = {"model_name": CLIP["name"]}
    return Node("clipscore", "NSClipScore", values, {"prompt": ("prompt", 0)}, (330, 190), models=(CLIP,))


def pick_score(title: str = "") -> Node:
    values = {"model_name": PICK_SCORE["name"]}
    return Node("pick", "NSPickScore", values, {"prompt": ("prompt", 0)}, (330, 150), title, (PICK_SCORE,))


def search(model: Link = ("ckpt", 0), vae: Link = ("ckpt", 2), verifier: str = "clipscore", *, budget: int = 16, keep: int = 1,
           key: str = "search", title: str = "", links: dict[str, Link] | None = None, **settings: Any) -> Node:  # fmt: skip
    """Return a Noise Search Sampler; `settings` differ from `RUN`, `links` are further ones or other ones."""
    values = {"seed": SEED, "control_after_generate": "fixed", **RUN, "denoise": 1.0, "budget": budget, "keep": keep, **settings}
    own = {"model": model, "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": ("latent", 0),
           "vae": vae, "verifier": (verifier, 0)}  # fmt: skip
    return Node(key, "NSSearchSampler", values, {**own, **(links or {})}, (500, 1260), title)


def advanced_search(vae: Link = ("ckpt", 2), *, budget: int = 16, keep: int = 1, links: dict[str, Link] | None = None) -> Node:
    """Return an Advanced Noise Search Sampler."""
    own = {"noise": ("noise", 0), "guider": ("guider", 0), "sampler": ("sampler", 0), "sigmas": ("sigmas", 0),
           "latent_image": ("latent", 0), "vae": vae, "verifier": ("clipscore", 0)}  # fmt: skip
    return Node("search", "NSSearchSamplerAdvanced", {"budget": budget, "keep": keep}, {**own, **(links or {})}, (500, 1070))


def plot(key: str = "search") -> Node:
    links = {"images": (key, PLOT_OUTPUT)}
    return Node("plot", "PreviewImage", {}, links, (400, 290), "Best score against model calls")


def save(images: Link = ("search", 0), size: tuple[int, int] = (400, 400), title: str = "", prefix: str = "noise-search") -> Node:
    return Node("save", "SaveImage", {"filename_prefix": prefix}, {"images": images}, size, title)


def recipe() -> Node:
    return Node("recipe", "PreviewAny", {}, {"source": ("search", RECIPE_OUTPUT)}, (340, 150), "The winner's recipe")


def report() -> Node:
    return Node("report", "PreviewAny", {}, {"source": ("search", REPORT_OUTPUT)}, (330, 734), "Report")
