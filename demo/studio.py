"""The demo model behind stock loaders, and the pack's nodes, in process: what the demo and the measurements use."""

from __future__ import annotations

import importlib

from .loaders import load_clip, load_clip_vision, register_folders
from .nodes import DemoOracle

STEPS, CFG, SAMPLER, SCHEDULER = 16, 3.5, "euler", "simple"
MODELS = {"large": "noise-search-demo-mmdit.safetensors", "small": "noise-search-demo-mmdit-small.safetensors"}


class Studio:
    """The demo model behind stock loaders, and the pack's nodes."""

    def __init__(self, model: str = MODELS["large"]) -> None:
        """Load a model by its file in diffusion_models, and what goes with it."""
        import nodes  # ComfyUI's

        register_folders()
        self.nodes = nodes
        (self.model,) = nodes.UNETLoader().load_unet(model, "default")
        (self.vae,) = nodes.VAELoader().load_vae("noise-search-demo-vae.safetensors")
        self.clip, self.vision = load_clip(), load_clip_vision()
        (self.negative,) = nodes.CLIPTextEncode().encode(self.clip, "")
        pack = importlib.import_module("noise_search.nodes")
        self.ids = {node.define_schema().node_id: node for node in pack.node_list()}

    def node(self, node_id: str, **inputs: object) -> tuple:
        """Run a node of the pack and return its outputs."""
        return self.ids[node_id].execute(**inputs).args

    def verifiers(self, prompt: str) -> tuple:
        """Return the tiny CLIP and the oracle as verifiers of a prompt."""
        connected = importlib.import_module("noise_search.nodes.definitions.verifiers.basic").CONNECTED
        (clip,) = self.node("NSClipScore", clip=self.clip, clip_vision=self.vision, model_name=connected, prompt=prompt)
        (oracle,) = DemoOracle.execute(prompt, "soft score").args
        return clip, oracle

    def search(
        self, prompt: str, seed: int, budget: int, keep: int, verifier: object, method: object, *,
        held_out: object = None, sampler: str = SAMPLER, steps: int = STEPS, rounds: str = "auto",
    ) -> tuple:  # fmt: skip
        """Search for a prompt's picture; return the outputs of the sampler node, the report parsed."""
        (positive,) = self.nodes.CLIPTextEncode().encode(self.clip, prompt)
        (latent,) = self.nodes.EmptyLatentImage().generate(64, 64, 1)
        outputs = self.node(
            "NSSearchSampler", model=self.model, seed=seed, steps=steps, cfg=CFG, sampler_name=sampler,
            scheduler=SCHEDULER, positive=positive, negative=self.negative, latent_image=latent, denoise=1.0,
            vae=self.vae, verifier=verifier, budget=budget, keep=keep, method=method, held_out=held_out,
            rounds=rounds,
        )  # fmt: skip
        (report,) = importlib.import_module("noise_search.search.reporting.report").read_reports(outputs[7])
        return outputs[0], report
