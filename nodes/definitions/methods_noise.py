"""Methods that search the first noise with a population, as nodes: frozen specs on a wire."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...search.methods.evolution import EvolutionSearch
from ...search.methods.spectral import SpectralSearch
from ...search.methods.trust_region import TrustRegionSearch
from .methods import CATEGORY, chained, draft_input, levels_input, then_inputs
from .schema import inp, schema
from .sockets import Method


class NSEvolutionSearch(io.ComfyNode):
    """A population of runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSEvolutionSearch",
            display_name="Evolutionary Search",
            category=CATEGORY,
            description="Renders a population, then children of the best that leave their parents' runs later and later, so "
            "that they cost less and less (EvoSearch, He et al. 2025, arXiv 2505.17618).",
            search_aliases=["evosearch", "genetic algorithm", "mutation"],
            inputs=[
                inp(io.String, "evolve_at", default="0, 0.4, 0.6, 0.8", tooltip="Where the children of each generation start, "
                    "as ascending shares of the steps; 0 is the first noise. Paper: 0.1, 0.4, 0.6, 0.8 (FLUX), 0, 0.4, 0.6, "
                    "0.8 (SD 2.1). Later ones change less and cost less; useful: 0 to 0.8."),
                inp(io.Float, "first_share", default=0.5, min=0.01, max=1.0, step=0.05, round=0.001,
                    tooltip="Share of the budget for the first, random generation. Paper: 0.42 to 0.48; useful: 0.3 to 0.7."),
                inp(io.Int, "elites", default=3, min=1, max=256, tooltip="How many of the best stay among the parents of the "
                    "next generation; they are never rendered again. Paper: 3 (FLUX), 5 (SD 2.1); useful: 2 to 8."),
                inp(io.Float, "mutation", default=0.2, min=0.01, max=1.0, step=0.05, round=0.001, tooltip="Share of fresh "
                    "noise in a child that starts from the first noise. Paper: 0.2; useful: 0.1 to 0.5. Later ones get as "
                    "much noise as one step takes away."),
                inp(io.Float, "tournament", default=0.9, min=0.01, max=1.0, step=0.05, round=0.001, tooltip="A child's parent "
                    "is the best of this share of the population, drawn by lot. Paper: 0.9, which is the very best nine times "
                    "in ten. Useful: 0.2 to 0.9; less keeps more variety."),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, evolve_at: str, first_share: float, elites: int, mutation: float, tournament: float, then: Any = None,
        then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        method = EvolutionSearch(shares_in(evolve_at), first_share, elites, mutation, tournament)
        return chained(method, then, then_after)


class NSSpectralSearch(io.ComfyNode):
    """The cross-entropy method on the low frequencies of the noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSSpectralSearch",
            display_name="Spectral Search",
            category=CATEGORY,
            description="Learns which low frequencies of the noise give good pictures, and leaves its fine grain alone (SES, "
            "arXiv 2602.03208). For composition, budgets from about 30 candidates, and deterministic samplers.",
            search_aliases=["ses", "spectral evolution", "cross-entropy method", "cem", "wavelet"],
            inputs=[
                inp(io.Int, "population", default=10, min=1, max=256, tooltip="Candidates per generation. Paper: 10; useful: "
                    "6 to 16."),
                inp(io.Int, "elites", default=5, min=2, max=32, tooltip="The next generation is drawn from so many of the "
                    "best so far, your own seed among them. Paper: 5; useful: 3 to 8."),
                levels_input(),
                inp(io.Float, "variance_floor", default=0.1, min=0.0, max=1.0, step=0.01, round=0.001, advanced=True,
                    tooltip="Least variance of what is drawn. The paper has none, and its search ends after some three "
                    "generations. Useful: 0.05 to 0.2."),
                draft_input(),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, population: int, elites: int, levels: int, variance_floor: float, draft_steps: int, then: Any = None,
        then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        return chained(SpectralSearch(population, elites, levels, variance_floor, draft_steps), then, then_after)


class NSTrustRegionSearch(io.ComfyNode):
    """Local search around several of the best at once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"min": 0.001, "max": 100.0, "step": 0.05, "round": 0.001, "advanced": True}
        return schema(
            node_id="NSTrustRegionSearch",
            display_name="Trust-Region Search",
            category=CATEGORY,
            description="Tries random noises first, then small steps around several of the best at once, with a step size "
            "that follows success (TRS, Schweiger et al. 2026, arXiv 2603.14504). For large budgets and deterministic samplers.",
            search_aliases=["trs", "turbo", "trust region", "local search"],
            inputs=[
                inp(io.Int, "regions", default=3, min=1, max=256, tooltip="Around how many of the best it searches. Paper: 15 "
                    "for 400 candidates; useful: 1 for each 10 to 25 candidates."),
                inp(io.Int, "batch", default=6, min=1, max=256, tooltip="Candidates per iteration, dealt to the regions in "
                    "turn. Paper: 20 for 15 regions; useful: 1 to 3 for each region."),
                inp(io.Float, "warm_up", default=0.2, min=0.0, max=1.0, step=0.05, round=0.001,
                    tooltip="Share of the candidates that are random, before the first step. Paper: 0.2; useful: 0.1 to 0.5."),
                inp(io.Float, "side", default=0.8, tooltip="Side of a region's box at first, in standard deviations of the "
                    "noise. Paper: 0.8; useful: 0.4 to 1.6.", **side),
                inp(io.Float, "side_min", default=0.05, tooltip="A box below this starts again. Paper: 0.05; useful: 0.02 to "
                    "0.2.", **side),
                inp(io.Float, "side_max", default=2.4, tooltip="The largest box. Paper: 2.4; useful: 1 to 4.", **side),
                draft_input(),
                *then_inputs(),
            ],
            outputs=[Method.Output("method")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, regions: int, batch: int, warm_up: float, side: float, side_min: float, side_max: float, draft_steps: int,
        then: Any = None, then_after: float = 0.5,
    ) -> io.NodeOutput:  # fmt: skip
        method = TrustRegionSearch(regions, batch, warm_up, side, side_min, side_max, draft_steps)
        return chained(method, then, then_after)


def shares_in(text: str) -> tuple[float, ...]:
    """Read numbers between commas."""
    try:
        return tuple(float(word) for word in text.replace(";", ",").split(",") if word.strip())
    except ValueError as error:
        raise ValueError(f"evolve_at: must be numbers between commas, as in '0, 0.4, 0.8', not {text[:60]!r}") from error


NODES = [NSEvolutionSearch, NSSpectralSearch, NSTrustRegionSearch]
