"""What the measurements share: the demo model in a real ComfyUI, and the ways to render the same candidates."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OUTPUT = HERE / "output"
sys.path.insert(0, str(HERE.parent / "demo"))

from bootstrap import load_pack, load_package, start_comfyui  # noqa: E402

load_package()
load_pack()
start_comfyui(None, "--cpu", "--disable-api-nodes")

import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402

studio = importlib.import_module("noise_search_demo.studio")
SAMPLER_NAMES = comfy.samplers.SAMPLER_NAMES
Studio, CFG, SCHEDULER, STEPS, MODELS = studio.Studio, studio.CFG, studio.SCHEDULER, studio.STEPS, studio.MODELS


class Rig:
    """Candidates of the demo model under one sampler: searched, in one plain batch, or one by one."""

    def __init__(self, sampler_name: str, studio: Studio, steps: int = STEPS) -> None:
        """Connect the demo model as a stock graph would."""
        (positive,) = studio.nodes.CLIPTextEncode().encode(studio.clip, "a red circle left of a blue square")
        self.guider = comfy.samplers.CFGGuider(studio.model)
        self.guider.set_conds(positive, studio.negative)
        self.guider.set_cfg(CFG)
        self.sampler = comfy.samplers.sampler_object(sampler_name)
        stock = comfy.samplers.KSampler(studio.model, steps, studio.model.load_device, sampler_name, SCHEDULER)
        self.sigmas = stock.sigmas.cpu()
        self.latent = {"samples": torch.zeros(1, 16, 8, 8)}

    def searched(self, count: int) -> Any:
        """Random search over `count` candidates, decode and verifier left out; return the search."""
        runner = importlib.import_module("noise_search.nodes.run.runner")
        session_module = importlib.import_module("noise_search.nodes.adapter.session")
        noise_module = importlib.import_module("noise_search.nodes.adapter.noise")
        budget = importlib.import_module("noise_search.search.base.budget").Budget(count)
        engine = importlib.import_module("noise_search.search.core.search")
        scorer = importlib.import_module("noise_search.search.scoring.scorer").Scorer(NoVerifier())
        method = importlib.import_module("noise_search.search.methods.random_search").RandomSearch()
        recipe = importlib.import_module("noise_search.search.noise.recipe").Recipe(0, 0)
        noise = noise_module.RecipeNoise(recipe)
        (graph,) = runner.graphs(noise, self.guider, self.sampler, self.sigmas, self.latent, None)
        session = session_module.ComfySession(graph, budget)
        session.decode = lambda latent, preview=False: torch.zeros(1, 1, 1, 3)
        search = engine.Search(session, scorer, budget, engine.SearchSettings(recipe, 0))
        for _ in method.run(search):
            pass
        search.close()
        return search

    def batch(self, seeds: list[int]) -> torch.Tensor:
        """One plain batch of stock sampling from these seeds' noises."""
        latent = self.latent["samples"]
        noise = torch.cat([comfy.sample.prepare_noise(latent, seed) for seed in seeds])
        return self.guider.sample(
            noise, torch.cat([latent] * len(seeds)), self.sampler, self.sigmas, disable_pbar=True, seed=seeds[0]
        )

    def single(self, seeds: list[int]) -> None:
        """One stock run for each seed."""
        for seed in seeds:
            self.batch([seed])


class NoVerifier:
    """Costs nothing."""

    name = "none"
    trusts_previews = True

    def score(self, images: torch.Tensor, latents: torch.Tensor | None = None) -> torch.Tensor:
        """Return zeros (B,)."""
        return torch.zeros(len(images))


def candidate_seeds(search: Any) -> list[int]:
    """Return the step seeds of a search's candidates."""
    return [candidate.recipe.seed for candidate in search.candidates]
