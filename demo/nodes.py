"""The demo's nodes: a loader for its CLIP, prompts of its grammar, and the oracle as a verifier."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import ComfyExtension, io
from torch import Tensor

from .loaders import load_clip, load_clip_vision, register_folders
from .oracle import exact_score, soft_score
from .shapes import parse_prompt, random_prompt

Verifier = io.Custom("NS_VERIFIER")
CATEGORY = "noise search/demo"


@dataclass(frozen=True)
class Oracle:
    """A verifier that reads the facts of a prompt off the pixels."""

    prompt: str
    exact: bool = False
    name: str = "oracle"
    score_range: tuple[float, float] = (0.0, 1.0)
    needs_prompt: bool = True
    trusts_previews: bool = True

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score pictures (B, H, W, 3) in [0, 1], with shape (B,), higher is better; latents are not used."""
        return (exact_score if self.exact else soft_score)(images, self.prompt).cpu()


class DemoCLIPLoader(io.ComfyNode):
    """Both towers of the demo's CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSDemoCLIPLoader",
            display_name="Load Demo CLIP",
            category=CATEGORY,
            description="Loads the tiny CLIP of the Noise Search demo: its text tower conditions the demo "
            "model, both towers together are an imperfect verifier.",
            inputs=[],
            outputs=[io.Clip.Output(display_name="clip"), io.ClipVision.Output(display_name="clip_vision")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(load_clip(), load_clip_vision())


class DemoPrompt(io.ComfyNode):
    """A random prompt that the demo model knows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSDemoPrompt",
            display_name="Demo Prompt",
            category=CATEGORY,
            description="Makes a prompt of the demo's grammar from a seed: "
            "'a red circle left of a blue square'.",
            inputs=[
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="The same seed gives the same prompt.",
                ),
            ],
            outputs=[io.String.Output(display_name="prompt")],
        )  # fmt: skip

    @classmethod
    def execute(cls, seed: int) -> io.NodeOutput:
        return io.NodeOutput(random_prompt(seed))


class DemoOracle(io.ComfyNode):
    """The oracle as a verifier."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="NSDemoOracle",
            display_name="Demo Oracle",
            category=CATEGORY,
            description="Checks colours, shapes and relation of a demo prompt on the pixels. "
            "The soft score is at least 0.9 exactly when every fact is right.",
            inputs=[
                io.String.Input("prompt", multiline=True, tooltip="'a red circle left of a blue square'"),
                io.Combo.Input(
                    "mode", options=["soft score", "exact"], default="soft score",
                    tooltip="Soft: partial credit for every fact. Exact: 1 if all facts are right, else 0.",
                ),
            ],
            outputs=[Verifier.Output(display_name="verifier")],
        )  # fmt: skip

    @classmethod
    def execute(cls, prompt: str, mode: str) -> io.NodeOutput:
        parse_prompt(prompt)
        return io.NodeOutput(Oracle(prompt=prompt, exact=mode == "exact"))


class DemoExtension(ComfyExtension):
    """The nodes of this folder."""

    def __init__(self) -> None:
        register_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [DemoCLIPLoader, DemoPrompt, DemoOracle]
