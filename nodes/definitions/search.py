"""The search nodes."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ...search.base.budget import StopRules
from ...search.noise.recipe import Recipe
from ..adapter.noise import RecipeNoise
from ..adapter.prompt_context import HIDDEN, PromptContext
from ..run.rounds import AUTO, ROUNDS
from ..run.runner import Settings, search_graph
from .schema import inp, schema
from .sockets import Budget, Method, Verifier

CATEGORY = "noise search"
MAX_SEED = 0xFFFFFFFFFFFFFFFF
CANCEL, KEEP_BEST = "cancel", "keep best"
STOP, SKIP = "stop", "skip"
RESUME = ["on", "fresh", "off"]
ON_CANCEL, ON_ERROR, BATCHING = [CANCEL, KEEP_BEST], [STOP, SKIP], ["auto", "on", "off"]
ALIASES = ["best of n", "seed search", "reroll", "inference-time scaling", "best seed"]


def search_inputs() -> list[Any]:
    """Return the required search inputs that both nodes have, in order."""
    return [
        inp(io.Vae, "vae", tooltip="Decodes candidates for the verifier. The one you decode the final image with."),
        inp(Verifier, "verifier", tooltip="Scores pictures; the search keeps what it scores highest. Choose it with "
            "care: it matters more than the method, and a search gives you what it measures."),
        inp(io.Int, "budget", default=16, min=1, max=100000, tooltip="How many whole images to spend, in model calls "
            "of your own seed's run. 1 is no search. Usual: 4 to 64; the paper goes to 96."),
        inp(io.Int, "keep", default=1, min=1, max=64, tooltip="How many of the best pictures to return, best first. "
            "Of candidates that branched from one run, which look alike, the best only, while there are others. "
            "Usual: 1 to 4. Fewer are returned if fewer were finished."),
    ]  # fmt: skip


def optional_inputs() -> list[Any]:
    """Return the optional search inputs that both nodes have, in order."""
    return [
        inp(Method, "method", optional=True, tooltip="How the budget is spent. Without one, what measured best: draft "
            "search (random search for budgets below 8, and with ancestral and SDE samplers), then refinement search for the "
            "last 30 %; random search alone for budgets below 4 and runs of 8 steps or fewer."),
        inp(Budget, "limits", optional=True, tooltip="Further limits: model calls, seconds, a target score, patience."),
        inp(Verifier, "held_out", optional=True, tooltip="A second verifier that never chooses. It scores the winners "
            "and your own seed for the report, so that you see whether the search only fooled the first one."),
        inp(io.Vae, "preview_vae", optional=True, tooltip="A cheap VAE (TAESD) for looking at half-finished candidates. "
            "Finished ones are always decoded with vae."),
        inp(io.Combo, "on_cancel", optional=True, options=ON_CANCEL, default=CANCEL, advanced=True,
            tooltip="What pressing Cancel does: cancel the workflow, or end the search and go on with the best so far."),
        inp(io.Combo, "on_verifier_error", optional=True, options=ON_ERROR, default=STOP, advanced=True,
            tooltip="When the verifier fails on a picture: stop with the error, or skip: that candidate ranks last, "
            "and the report says so."),
        inp(io.Combo, "batching", optional=True, options=BATCHING, default="auto", advanced=True,
            tooltip="Whether several candidates go through the model together, which is faster. auto: where "
            "it is known to change no picture. on: always, "
            "at your own risk. off: one at a time."),
        inp(io.String, "choose", optional=True, default="", tooltip="Empty: the best comes out. A candidate's recipe: that "
            "one comes out in its place, without searching again; 'Use as output' on a picture of the dashboard fills it in. "
            "It holds for the search whose candidate it is: with another seed the best comes out."),
        inp(io.Combo, "resume", optional=True, options=RESUME, default="on", advanced=True,
            tooltip="on: everything that is computed is also written to disk, and what is there already is not computed "
            "again: raise the budget, change the method, or come back after a crash. fresh: forget what is there and begin "
            "anew. off: read and write nothing."),
        inp(io.Combo, "rounds", optional=True, options=ROUNDS, default=AUTO, advanced=True,
            tooltip="How many candidates are tried between two looks at their scores. auto: as the method says; many more where "
            "the models do not fit on the card together, since they are swapped in every round: that is faster, and finds a "
            "little less. small, large: always, so that two machines give the same result. The report says which it was."),
    ]  # fmt: skip


def search_outputs() -> list[Any]:
    """Return the outputs of both nodes, in order."""
    return [
        io.Image.Output("images", tooltip="The best pictures, best first."),
        io.Latent.Output("latents", tooltip="Their latents, best first."),
        io.Noise.Output("noise", tooltip="The winner's noise, for SamplerCustomAdvanced and the like."),
        io.Sigmas.Output("sigmas", tooltip="The noise levels of the winner's run, to go with noise."),
        io.Int.Output("seed", tooltip="The winner's seed of the sampler's own randomness. The noise output carries it too."),
        io.Float.Output("score", tooltip="The winner's score."),
        io.String.Output("recipe", tooltip="A short text that makes the winner again: for Render Candidate."),
        io.String.Output("report", tooltip="JSON: baseline and best score, every candidate, what it cost."),
        io.Image.Output("plot", tooltip="Best score against model calls; your own seed is marked."),
    ]


class NSSearchSampler(io.ComfyNode):
    """A KSampler that searches."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = {"options": comfy.samplers.KSampler.SAMPLERS}, {"options": comfy.samplers.KSampler.SCHEDULERS}
        return schema(
            node_id="NSSearchSampler",
            display_name="Noise Search Sampler",
            category=CATEGORY,
            description="Use it in the place of a KSampler and a VAE Decode: it tries many seeds, judges the pictures "
            "with a verifier, and returns the best. Your own seed is always among them.",
            search_aliases=ALIASES,
            inputs=[
                inp(io.Model, "model", tooltip="The diffusion model, with whatever LoRAs and patches you use."),
                inp(io.Int, "seed", default=0, min=0, max=MAX_SEED, control_after_generate=True,
                    tooltip="Your seed. It is the first picture tried, and the seeds of all others are derived from it."),
                inp(io.Int, "steps", default=20, min=1, max=10000, tooltip="Steps of a full run, as in KSampler. "
                    "Usual: 20 to 30."),
                inp(io.Float, "cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01,
                    tooltip="Guidance, as in KSampler. Usual: 3 to 8; 1 for distilled models."),
                inp(io.Combo, "sampler_name", **names[0], tooltip="Any sampler works, as in KSampler. With an ancestral "
                    "or SDE sampler every candidate has its own step noise too."),
                inp(io.Combo, "scheduler", **names[1], tooltip="How the steps are spaced, as in KSampler."),
                inp(io.Conditioning, "positive", tooltip="What the picture should show."),
                inp(io.Conditioning, "negative", tooltip="What it should not show."),
                inp(io.Latent, "latent_image", tooltip="The latent to denoise. A batch is searched row by row."),
                inp(io.Float, "denoise", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Below 1 keeps some of the input image, as in KSampler. Usual: 1, or 0.3 to 0.8 for img2img."),
                *search_inputs(),
                *optional_inputs(),
            ],
            outputs=search_outputs(),
            hidden=HIDDEN,
            has_intermediate_output=True,  # newer cores show the dashboard again when nothing has to be run
            not_idempotent=True,  # each of two equal nodes has a dashboard of its own
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise,
        vae, verifier, budget, keep, method=None, limits=None, held_out=None, preview_vae=None,
        on_cancel=CANCEL, on_verifier_error=STOP, batching="auto", choose="", resume="on", rounds=AUTO,
    ) -> io.NodeOutput:  # fmt: skip
        check_choice("sampler_name", sampler_name, comfy.samplers.KSampler.SAMPLERS)
        check_choice("scheduler", scheduler, comfy.samplers.KSampler.SCHEDULERS)
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        stock = comfy.samplers.KSampler(
            model, steps=steps, device=model.load_device, sampler=sampler_name, scheduler=scheduler, denoise=denoise,
            model_options=model.model_options,
        )  # fmt: skip
        sampler = comfy.samplers.sampler_object(sampler_name)
        settings = _settings(
            verifier, budget, keep, method, limits, held_out, on_cancel, on_verifier_error, batching, choose, resume, rounds
        )
        noise, sigmas = RecipeNoise(Recipe(seed, seed)), stock.sigmas.cpu()
        return search_graph(noise, guider, sampler, sigmas, latent_image, vae, preview_vae, settings, PromptContext.of(cls))


class NSSearchSamplerAdvanced(io.ComfyNode):
    """A SamplerCustomAdvanced that searches."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSSearchSamplerAdvanced",
            display_name="Noise Search Sampler (Advanced)",
            category=CATEGORY,
            description="Use it in the place of a SamplerCustomAdvanced and a VAE Decode: any guider, sampler and sigmas. "
            "It tries many noises, judges the pictures with a verifier, and returns the best.",
            search_aliases=ALIASES,
            inputs=[
                inp(io.Noise, "noise", tooltip="Your noise. It is the first one tried; the others are what its node makes at "
                    "other seeds. If it makes none there, they are Gaussian, and the report says so."),
                inp(io.Guider, "guider", tooltip="Any guider: model, conditioning and guidance."),
                inp(io.Sampler, "sampler", tooltip="Any sampler, stochastic and adaptive ones too."),
                inp(io.Sigmas, "sigmas", tooltip="Noise levels of a full run, from a scheduler node. They need not end in 0."),
                inp(io.Latent, "latent_image", tooltip="The latent to denoise. A batch is searched row by row."),
                *search_inputs(),
                *optional_inputs(),
            ],
            outputs=search_outputs(),
            hidden=HIDDEN,
            has_intermediate_output=True,
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls, noise, guider, sampler, sigmas, latent_image, vae, verifier, budget, keep, method=None, limits=None,
        held_out=None, preview_vae=None, on_cancel=CANCEL, on_verifier_error=STOP, batching="auto", choose="", resume="on",
        rounds=AUTO,
    ) -> io.NodeOutput:  # fmt: skip
        settings = _settings(
            verifier, budget, keep, method, limits, held_out, on_cancel, on_verifier_error, batching, choose, resume, rounds
        )
        return search_graph(noise, guider, sampler, sigmas, latent_image, vae, preview_vae, settings, PromptContext.of(cls))


def check_choice(name: str, value: str, options: list[str]) -> None:
    """Raise a ValueError that names the input unless `value` is an option: older cores do not look."""
    if value not in options:
        raise ValueError(f"{name}: {value!r} is none of {', '.join(options)}")


def _settings(
    verifier: Any, budget: int, keep: int, method: Any, limits: StopRules | None, held_out: Any, on_cancel: str,
    on_verifier_error: str, batching: str, choose: str, resume: str, rounds: str,
) -> Settings:  # fmt: skip
    check_choice("on_cancel", on_cancel, ON_CANCEL)
    check_choice("on_verifier_error", on_verifier_error, ON_ERROR)
    check_choice("batching", batching, BATCHING)
    check_choice("resume", resume, RESUME)
    check_choice("rounds", rounds, ROUNDS)
    return Settings(
        verifier, budget, keep, method, limits or StopRules(), held_out, on_cancel == KEEP_BEST,
        on_verifier_error == SKIP, batching, choose, resume, rounds,
    )  # fmt: skip


NODES = [NSSearchSampler, NSSearchSamplerAdvanced]
