"""API-form workflows on the demo model, for tests over HTTP.

workflow(budget=8, keep=2)          # a search; arguments are inputs of the search node
node("SaveImage", images=["x", 0])  # one node of such a workflow
"""

from __future__ import annotations

from typing import Any

from reported import reports_in
from whole_prompts import node

PROMPT = "a red circle left of a blue square"
STEPS = 8


def demo(prompt: str) -> dict[str, Any]:
    """Return the demo model's nodes and a prompt's: what every search on it begins with."""
    return {
        "unet": node("UNETLoader", unet_name="noise-search-demo-mmdit.safetensors", weight_dtype="default"),
        "vae": node("VAELoader", vae_name="noise-search-demo-vae.safetensors"),
        "clip": node("NSDemoCLIPLoader"),
        "positive": node("CLIPTextEncode", clip=["clip", 0], text=prompt),
        "negative": node("CLIPTextEncode", clip=["clip", 0], text=""),
        "latent": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
    }


def workflow(**changes: Any) -> dict[str, Any]:
    """Search on the demo model; its images saved, its report shown. `changes` are inputs of the search node."""
    inputs = {
        "model": ["unet", 0], "seed": 1, "steps": STEPS, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple",
        "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "denoise": 1.0,
        "vae": ["vae", 0], "verifier": ["verifier", 0], "budget": 4, "keep": 1, "method": ["method", 0],
    }  # fmt: skip
    return {
        **demo(PROMPT),
        "verifier": node("NSDemoOracle", prompt=PROMPT, mode="soft score"),
        "method": node("NSRandomSearch", draft_steps=0),
        "search": node("NSSearchSampler", **{**inputs, **changes}),
        "save": node("SaveImage", images=["search", 0], filename_prefix="found"),
        "report": node("PreviewAny", source=["search", 7]),
    }


def twice(**changes: Any) -> dict[str, Any]:
    """Two searches that one node builds and shows at itself; `changes` are its inputs."""
    graph = workflow(**{"budget": 3, **changes})
    given = ("model", "positive", "negative", "latent_image", "vae", "verifier", "method", "seed", "steps", "budget")
    inputs = graph.pop("search")["inputs"]
    graph["both"] = node("ForeignTwice", **{name: inputs[name] for name in given}, choose=inputs.get("choose", ""))
    graph["save"] = node("SaveImage", images=["both", 0], filename_prefix="first")
    graph["other"] = node("SaveImage", images=["both", 1], filename_prefix="second")
    graph["report"] = node("PreviewAny", source=["both", 2])
    return graph


def loop(**changes: Any) -> dict[str, Any]:
    """A search of the page's own that a node repeats with two seeds."""
    graph = workflow(**{"budget": 3, **changes})
    del graph["report"]
    graph["loop"] = node("ForeignLoop", images=["search", 0], times=2)
    graph["save"]["inputs"]["images"] = ["loop", 0]
    graph["other"] = node("SaveImage", images=["loop", 1], filename_prefix="second")
    return graph


def numbered(graph: dict[str, Any]) -> dict[str, Any]:
    """Return a workflow with numbers in place of names, from 1 in order, as the page has them."""
    ids = {name: str(number) for number, name in enumerate(graph, 1)}

    def renamed(value: Any) -> Any:
        return [ids[value[0]], value[1]] if isinstance(value, list) else value

    return {
        ids[name]: {**one, "inputs": {key: renamed(value) for key, value in one["inputs"].items()}} for name, one in graph.items()
    }


def report_of(result: Any) -> dict[str, Any]:
    """Return the report of a search that ran on a server, as its result shows it."""
    return reports_in(result.outputs["report"]["text"][0])
