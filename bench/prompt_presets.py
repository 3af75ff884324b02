"""The seed paper's settings, as changes to a workflow.

References:
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from .prompt_workflow import SEARCH_NODES, Workflow, WorkflowError

METHOD_NODE = "bench_method"


@dataclass(frozen=True)
class Preset:
    """One setting of the paper.

    Attributes:
        about: What it is.
        steps: Of every candidate's run.
        sampler_name: ComfyUI's name of its sampler; None to leave the workflow's.
        cfg: Guidance scale; None to leave the workflow's.
        guidance: Of FLUX's own guidance input (node FluxGuidance); None to leave the workflow's.
        budget: Candidates of a search; None to leave the workflow's.
        repeats: Pictures for each prompt.
        tables: The paper's tables that hold its numbers (ids in paper_tables.json).
    """

    about: str
    steps: int
    sampler_name: str | None = None
    cfg: float | None = None
    guidance: float | None = None
    budget: int | None = None
    repeats: int = 1
    tables: tuple[str, ...] = ()


PRESETS: dict[str, Preset] = {
    "flux-drawbench": Preset(
        "FLUX.1-dev on DrawBench: Euler, 30 steps, guidance 3.5, 96 candidates (2,880 model calls), 1 picture a prompt",
        steps=30, sampler_name="euler", guidance=3.5, budget=96, tables=("drawbench-flux", "small-and-big"),
    ),
    "flux-compbench": Preset(
        "FLUX.1-dev on T2I-CompBench: Euler, 30 steps, guidance 3.5, 64 candidates (1,920 model calls), 2 pictures a prompt",
        steps=30, sampler_name="euler", guidance=3.5, budget=64, repeats=2, tables=("compbench-flux",),
    ),
    "sdxl-drawbench": Preset(
        "SDXL or SDXL-DPO on DrawBench: 40 steps, 32 candidates (1,280 model calls), 1 picture a prompt",
        steps=40, budget=32, tables=("sdxl-dpo",),
    ),
    "pixart-drawbench": Preset(
        "PixArt-Sigma on DrawBench: DDIM, 30 steps, guidance 4.5, the workflow's own budget, 1 picture a prompt",
        steps=30, sampler_name="ddim", cfg=4.5, tables=("small-and-big",),
    ),
}  # fmt: skip


def apply_preset(workflow: Workflow, preset: Preset) -> tuple[Workflow, list[str]]:
    """Return the workflow with a preset's values, and what was changed, in words.

    Every node input called `steps`, `sampler_name` or `cfg` is set, `guidance` of FluxGuidance nodes and `budget` of
    search nodes. The paper's tables are of random search above all: a search node without a method gets it.

    Raises:
        WorkflowError: If a value has no place in the workflow: the run would not be the paper's.
    """
    workflow, said = copy.deepcopy(workflow), []
    wanted = {"steps": preset.steps, "sampler_name": preset.sampler_name, "cfg": preset.cfg,
              "guidance": preset.guidance, "budget": preset.budget}  # fmt: skip
    for name, value in wanted.items():
        if value is not None:
            said += _set_all(workflow, name, value)
    for node_id, node in list(workflow.items()):
        if node["class_type"] in SEARCH_NODES:
            if "method" in node["inputs"]:
                said.append(f"{node_id}.method: kept as connected")
                continue
            workflow[METHOD_NODE] = {"class_type": "NSRandomSearch", "inputs": {"draft_steps": 0}}
            node["inputs"]["method"] = [METHOD_NODE, 0]
            said.append(f"{node_id}.method: random search, which had none")
    return workflow, said


def _set_all(workflow: Workflow, name: str, value: Any) -> list[str]:
    places = [
        node_id for node_id, node in workflow.items()
        if name in node["inputs"]
        and (name != "guidance" or node["class_type"] == "FluxGuidance")
        and (name != "budget" or node["class_type"] in SEARCH_NODES)
    ]  # fmt: skip
    if not places:
        where = {"guidance": "FluxGuidance node", "budget": "search node"}.get(name, f"node with an input {name!r}")
        raise WorkflowError(f"the preset sets {name} to {value}, but the workflow holds no {where}: add one")
    said = []
    for node_id in places:
        inputs = workflow[node_id]["inputs"]
        before = f"what node {inputs[name][0]} gave" if isinstance(inputs[name], list) else inputs[name]
        said.append(f"{node_id}.{name}: {before} -> {value}")
        inputs[name] = value
    return said
