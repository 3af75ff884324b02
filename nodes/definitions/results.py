"""What is done with a winner afterwards: its noise for stock nodes, and its picture again."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ...search.base.budget import Budget
from ...search.core.replay import replay
from ...search.noise.recipe import GIVEN, NEEDS_NOISE, Recipe, recipes_from_json
from ...search.reporting.report import holds_candidates, read_reports
from ..adapter.noise import BatchNoise, RecipeNoise, join
from ..adapter.session import ComfySession, samples_of
from ..run.runner import check_sigmas, count_rows, graphs, repaired
from .schema import inp, schema

CATEGORY = "noise search"
REFUSE, LEAVE_OUT = "refuse", "leave out"
WINNER = -1  # in place of a candidate's index: the first that the report keeps


class NSNoiseFromRecipe(io.ComfyNode):
    """A recipe as a NOISE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSNoiseFromRecipe",
            display_name="Noise from Recipe",
            category=CATEGORY,
            description="Makes the noise of a search's winner again from its recipe, for SamplerCustomAdvanced. With the "
            "same model, prompt, sampler, sigmas and latent it gives the same picture.",
            search_aliases=["recipe", "reuse seed", "noise from seed"],
            inputs=[
                inp(io.String, "recipe", multiline=True, tooltip="The recipe output of a search, connected or pasted. One with "
                    "conditioning jitter needs Jitter Conditioning too, on the positive conditioning."),
                inp(io.Combo, "cuts", options=[REFUSE, LEAVE_OUT], default=REFUSE, optional=True, tooltip="For a recipe whose "
                    "run branched on its way, as refined winners do. leave out: the noise the run began with, which gives "
                    "the same layout and other details. For the very picture: Render Candidate."),
                inp(io.Noise, "noise", optional=True, tooltip="The noise that the search was given, if it was not RandomNoise's. "
                    "Only used by recipes whose 'noise' begins with 'given'."),
            ],
            outputs=[io.Noise.Output("noise", tooltip="The winner's noise, with its seed for the sampler's own randomness.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, recipe: str, cuts: str = REFUSE, noise: Any = None) -> io.NodeOutput:
        recipes = recipes_from_json(recipe)
        if cuts == REFUSE and any(r.cuts for r in recipes):
            raise ValueError(
                "recipe: its run branched on the way, so that no first noise alone gives its picture: use 'Render Candidate', "
                f"or set 'cuts' to {LEAVE_OUT!r} for the noise it began with (the same layout, other details)"
            )
        if noise is None and any(r.needs_noise for r in recipes):
            raise ValueError(NEEDS_NOISE)
        noises = [RecipeNoise(r, source=noise) for r in recipes]
        given = noise if any(r.start == GIVEN for r in recipes) else None
        return io.NodeOutput(noises[0] if len(noises) == 1 else BatchNoise(noises, source=given))


class NSRenderCandidate(io.ComfyNode):
    """Any candidate of a report again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSRenderCandidate",
            display_name="Render Candidate",
            category=CATEGORY,
            description="Renders a recipe again: the winner, or any other candidate of the report.",
            search_aliases=["recipe", "rerender", "reproduce", "render winner"],
            inputs=[
                inp(io.Noise, "noise", tooltip="The noise that the search was given. Only used by recipes whose "
                    "'noise' begins with 'given'."),
                inp(io.Guider, "guider", tooltip="The search's guider."),
                inp(io.Sampler, "sampler", tooltip="The search's sampler."),
                inp(io.Sigmas, "sigmas", tooltip="The search's sigmas (noise levels)."),
                inp(io.Latent, "latent_image", tooltip="The search's latent."),
                inp(io.Vae, "vae", tooltip="Decodes the picture."),
                inp(io.String, "recipe", multiline=True, tooltip="A recipe, as the search puts it out or its CSV file lists it; "
                    "a list of recipes goes with a latent batch of as many rows. Or the search's report, of which 'candidate' is "
                    "rendered."),
                inp(io.Int, "candidate", default=WINNER, min=WINNER, max=2**31 - 1, optional=True, tooltip="Of a report given as "
                    "'recipe': the index of the candidate to render. -1: the picture that came out first. Every row of a latent "
                    "batch renders the one of its own search."),
            ],
            outputs=[io.Image.Output("image"), io.Latent.Output("latent")],
        )  # fmt: skip

    @classmethod
    def execute(cls, noise, guider, sampler, sigmas, latent_image, vae, recipe, candidate=WINNER) -> io.NodeOutput:
        check_sigmas(sigmas)
        recipes = recipes_of(recipe, candidate)
        latent = repaired(guider, latent_image)
        rows = count_rows(guider, latent)
        if len(recipes) != rows:
            raise ValueError(
                f"recipe: it holds {len(recipes)} recipes, and the latent batch has {rows} rows: they must be as many"
            )
        images, latents = [], []
        for graph, one in zip(graphs(noise, guider, sampler, sigmas, latent, vae), recipes, strict=True):
            session = ComfySession(graph, Budget(1))
            rendered = replay(session, one).latent
            images.append(session.decode(rendered))
            latents.append(samples_of(rendered))
        return io.NodeOutput(torch.cat(images), {**latent, "samples": join(latents)})


def recipes_of(text: str, index: int) -> list[Recipe]:
    """Read recipes, or one of each search that a report tells of: that of the candidate with an index.

    Raises:
        ValueError: the text is neither, or a search has no such candidate.
    """
    if not holds_candidates(text):
        return recipes_from_json(text)
    recipes = []
    for report in read_reports(text):
        count, place = len(report["candidates"]), report["kept"][0] if index == WINNER else index
        if place >= count:
            raise ValueError(f"candidate: {index} is none of the report's {count}: 0 to {count - 1}, or {WINNER} for the winner")
        recipes.append(Recipe.from_json(report["candidates"][place]["recipe"]))
    return recipes


NODES = [NSNoiseFromRecipe, NSRenderCandidate]
