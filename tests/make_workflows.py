"""Builds the example workflows in ComfyUI's own page, so that they are what the page itself would save.

    .venv/bin/python tests/make_workflows.py                     UI form, and API form for the tests
    .venv/bin/python tests/make_workflows.py --pictures --nodes2 their pictures, after a run with the demo model

Build the workflows on the oldest ComfyUI (newer pages read what older ones wrote), the pictures on a new one.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from examples import (
    API_FORMS,
    CHECKPOINT,
    CLIP_VISION,
    DEMO_LOADERS,
    DEMO_VALUES,
    NAMES,
    ROOT,
    STAND_INS,
    USER_FORMS,
    demo_form,
)  # fmt: skip
from PIL import Image
from playwright.sync_api import sync_playwright
from tiny_files import write_tiny_files

from live import Server
from webui import FLAGS, WebUI, find_browser

CHECKPOINT_FILE = {
    "name": "v1-5-pruned-emaonly-fp16.safetensors",
    "url": "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
    "directory": "checkpoints",
}
CLIP_FILE = {
    "name": "clip-vit-large-patch14.safetensors",
    "url": "https://huggingface.co/openai/clip-vit-large-patch14/resolve/main/model.safetensors",
    "directory": "clip_vision",
}
HEAD_FILE = {
    "name": "sac+logos+ava1-l14-linearMSE.pth",
    "url": "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    "directory": "verifiers",
}
IMAGE_REWARD_FILE = {
    "name": "ImageReward.pt",
    "url": "https://huggingface.co/THUDM/ImageReward/resolve/main/ImageReward.pt",
    "directory": "verifiers",
}
PICK_SCORE_FILE = {
    "name": "PickScore_v1.safetensors",
    "url": "https://huggingface.co/yuvalkirstain/PickScore_v1/resolve/main/model.safetensors",
    "directory": "clip_vision",
}
PROMPT = "a red fox sitting to the left of a blue wooden chair, in a sunlit garden, photograph"
NEGATIVE = "blurry, deformed, text, watermark"
SEED = 6
PLOT_OUTPUT = 8
RECIPE = '{"noise_search": 1, "noise": "675941448269958", "seed": "675941448269958"}'
RUN = {"steps": 20, "cfg": 7.5, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
MODEL, PROMPTS, JUDGE, SEARCH, RESULT = "#3f789e", "#8AA", "#88A", "#8A8", "#b58b2a"  # the page's own group colors


@dataclass(frozen=True)
class Node:
    """One node: its type, values of widgets, and links as {input: (key of a node, output's index)}."""

    key: str
    type: str
    values: dict[str, Any] = field(default_factory=dict)
    links: dict[str, tuple[str, int]] = field(default_factory=dict)
    size: tuple[int, int] = (300, 0)
    title: str = ""
    models: tuple[dict[str, str], ...] = ()
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


def note(text: str, size: tuple[int, int]) -> Group:
    """A box of text for the user."""
    return Group("", "", ((Node("note", "MarkdownNote", {"": text.strip()}, size=size, title="Read me"),),))


def checkpoint() -> Node:
    return Node("ckpt", CHECKPOINT, {"ckpt_name": CHECKPOINT_FILE["name"]}, models=(CHECKPOINT_FILE,), size=(310, 0))


def prompts() -> tuple[Node, ...]:
    clip = ("ckpt", 1)
    return (
        Node("prompt", "PrimitiveStringMultiline", {"value": PROMPT}, size=(310, 110), title="Prompt"),
        Node("positive", "CLIPTextEncode", {}, {"clip": clip, "text": ("prompt", 0)}, (310, 90), "Positive"),
        Node("negative", "CLIPTextEncode", {"text": NEGATIVE}, {"clip": clip}, (310, 90), "Negative"),
    )


def latent(batch: int = 1) -> Node:
    return Node("latent", "EmptyLatentImage", {"width": 512, "height": 512, "batch_size": batch}, size=(310, 0))


def clip_score() -> Node:
    values = {"model_name": CLIP_FILE["name"]}
    return Node("clipscore", "NSClipScore", values, {"prompt": ("prompt", 0)}, (330, 190), models=(CLIP_FILE,))


def text_to_image() -> Graph:
    search = Node(
        "search", "NSSearchSampler",
        {"seed": SEED, "control_after_generate": "fixed", **RUN, "denoise": 1.0, "budget": 16, "keep": 4},
        {"model": ("ckpt", 0), "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": ("latent", 0),
         "vae": ("ckpt", 2), "verifier": ("clipscore", 0)}, (340, 760),
    )  # fmt: skip
    text = """
### Search instead of re-rolling
This node takes the place of a **KSampler** and a **VAE Decode**. It tries many seeds for the price of *budget* whole images,
lets a *verifier* score them, and returns the best. Your own seed is always one of them.

**Change:** the prompt (encoder and verifier both read it) · your checkpoint, size, steps and cfg · *budget*: 4 to 64.

**Needed in models/clip_vision:** model.safetensors of openai/clip-vit-large-patch14, saved as
*clip-vit-large-patch14.safetensors*.
"""
    return Graph("text_to_image_search", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · Verifier: what is good", JUDGE, ((clip_score(),),)), note(text, (362, 250))),
        (Group("3 · Search", SEARCH, ((search,),)),),
        (Group("4 · Result", RESULT, (
            (Node("save", "SaveImage", {"filename_prefix": "noise-search"}, {"images": ("search", 0)}, (400, 400),
                  "Save Image: the best, best first"),
             Node("plot", "PreviewImage", {}, {"images": ("search", PLOT_OUTPUT)}, (400, 290), "Best score against model calls")),
            (Node("report", "PreviewAny", {}, {"source": ("search", 7)}, (330, 734), "Report"),),
        )),),
    ))  # fmt: skip


def advanced() -> Graph:
    guider = Node("guider", "CFGGuider", {"cfg": RUN["cfg"]},
                  {"model": ("ckpt", 0), "positive": ("positive", 0), "negative": ("negative", 0)}, (280, 0))  # fmt: skip
    noise = Node("noise", "RandomNoise", {"noise_seed": SEED, "control_after_generate": "fixed"}, size=(280, 0))
    sampler = Node("sampler", "KSamplerSelect", {"sampler_name": RUN["sampler_name"]}, size=(280, 0))
    sigmas = Node("sigmas", "BasicScheduler", {"scheduler": RUN["scheduler"], "steps": RUN["steps"], "denoise": 1.0},
                  {"model": ("ckpt", 0)}, (280, 0))  # fmt: skip
    method = Node("method", "NSHalvingSearch", {"first_cut": 0.25, "second_cut": 0.5, "cut_by": "steps"}, size=(330, 0))
    limits = Node("limits", "NSBudget", {"max_seconds": 600.0}, size=(330, 0))
    search = Node(
        "search", "NSSearchSamplerAdvanced", {"budget": 16, "keep": 1},
        {"noise": ("noise", 0), "guider": ("guider", 0), "sampler": ("sampler", 0), "sigmas": ("sigmas", 0),
         "latent_image": ("latent", 0), "vae": ("ckpt", 2), "verifier": ("clipscore", 0), "method": ("method", 0),
         "limits": ("limits", 0)}, (340, 570),
    )  # fmt: skip
    text = """
### Any guider, sampler and sigmas
The search node takes the place of **SamplerCustomAdvanced**: put your own guider, sampler and scheduler nodes here.

**Halving Search** starts about 32 seeds for a budget of 16, scores them unfinished after 25 % and 50 % of the steps,
and drops the worse.
**Search Limits** ends the search after 600 seconds, whatever the budget says.

**Reuse:** copy the recipe into the workflow *reuse_a_winner*.
"""
    return Graph("advanced_search", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · How an image is made", PROMPTS, ((noise, guider, sampler, sigmas),)), note(text, (312, 270))),
        (Group("3 · Verifier and method", JUDGE, ((clip_score(), method, limits),)),),
        (Group("4 · Search", SEARCH, (
            (search, Node("recipe", "PreviewAny", {}, {"source": ("search", 6)}, (340, 150), "The winner's recipe")),)),),
        (Group("5 · Result", RESULT, (
            (Node("save", "SaveImage", {"filename_prefix": "noise-search"}, {"images": ("search", 0)}, (400, 400)),
             Node("plot", "PreviewImage", {}, {"images": ("search", PLOT_OUTPUT)}, (400, 290), "Best score against model calls")),
        )),),
    ))  # fmt: skip


def reuse() -> Graph:
    noise = Node("noise", "RandomNoise", {"noise_seed": SEED, "control_after_generate": "fixed"}, size=(320, 0))
    guider = Node("guider", "CFGGuider", {"cfg": RUN["cfg"]},
                  {"model": ("ckpt", 0), "positive": ("positive", 0), "negative": ("negative", 0)}, (320, 0))  # fmt: skip
    sampler = Node("sampler", "KSamplerSelect", {"sampler_name": RUN["sampler_name"]}, size=(320, 0))
    sigmas = Node("sigmas", "BasicScheduler", {"scheduler": RUN["scheduler"], "steps": RUN["steps"], "denoise": 1.0},
                  {"model": ("ckpt", 0)}, (320, 0))  # fmt: skip
    render = Node(
        "render", "NSRenderCandidate", {"recipe": RECIPE},
        {"noise": ("noise", 0), "guider": ("guider", 0), "sampler": ("sampler", 0), "sigmas": ("sigmas", 0),
         "latent_image": ("latent", 0), "vae": ("ckpt", 2)}, (320, 300),
    )  # fmt: skip
    text = """
### Render a winner again
Paste the **recipe** of a search into *Render Candidate*. With the same model, prompt, cfg, sampler, scheduler, steps, size
and seed as in the search you get the same picture, for the price of one image.

Then vary one thing: a LoRA, another word in the prompt. The layout mostly stays. For other samplers or more steps take the
noise alone: *Noise from Recipe*, cuts at *leave out*, and stock sampling.

The recipe here is a sample: a seed that a search found.
"""
    return Graph("reuse_a_winner", (
        (Group("1 · As in the search", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · Settings, as in the search", PROMPTS, ((noise, guider, sampler, sigmas),)),),
        (Group("3 · Recipe", SEARCH, ((render,),)), note(text, (352, 260))),
        (Group("4 · Result", RESULT, (
            (Node("save", "SaveImage", {"filename_prefix": "noise-search-again"}, {"images": ("render", 0)},
                  (460, 540)),),
        )),),
    ))  # fmt: skip


def score_batch() -> Graph:
    sample = Node(
        "sample", "KSampler", {"seed": SEED, "control_after_generate": "fixed", **RUN, "denoise": 1.0},
        {"model": ("ckpt", 0), "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": ("latent", 0)},
        (320, 480),
    )  # fmt: skip
    decode = Node("decode", "VAEDecode", {}, {"samples": ("sample", 0), "vae": ("ckpt", 2)}, (320, 0))
    both = Node(
        "both", "NSVerifierEnsemble", {"weight_1": 1.0, "weight_2": 0.3, "mode": "rank mean"},
        {"verifier_1": ("clipscore", 0), "verifier_2": ("statistics", 0)}, (330, 500),
    )  # fmt: skip
    score = Node("score", "NSScoreImages", {"keep": 0}, {"images": ("decode", 0), "verifier": ("both", 0)}, (260, 0))
    text = """
### Pick the best of a batch
Eight pictures of a stock KSampler, scored by an ensemble and sorted, **best first**. No search: use it on any pictures,
loaded ones too.

The ensemble ranks by how well the picture fits the prompt (weight 1) and a little by sharpness, exposure and color
(weight 0.3). Add your own verifiers.

*keep* 1 puts out the best only. *order* says which pictures of the batch they were.
"""
    return Graph("score_a_batch", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent(8)),)),),
        (Group("2 · Eight pictures", PROMPTS, ((sample, decode),)), note(text, (352, 220))),
        (Group("3 · Verifiers", JUDGE, (
            (clip_score(),
             Node("statistics", "NSImageStatistics", {}, size=(330, 0))), (both,))),),
        (Group("4 · Score and sort", RESULT, (
            (score, Node("order", "PreviewAny", {}, {"source": ("score", 4)}, (260, 120), "Order: places in the batch")),
            (Node("preview", "PreviewImage", {}, {"images": ("score", 0)}, (460, 560), "Best first"),),
        )),),
    ))  # fmt: skip


def any_nodes() -> Graph:
    image = Node("image", "NSGraphImage", size=(280, 0))
    crop = Node(
        "crop", "ImageCrop", {"width": 256, "height": 512, "x": 0, "y": 0}, {"image": ("image", 0)}, (280, 190), "Cut out a part"
    )
    part = replace(clip_score(), key="part", values={"model_name": CLIP_FILE["name"], "prompt": "a red fox"}, links={},
                   title="CLIP Score: what must be in it")  # fmt: skip
    score = Node("score", "NSScoreImages", {"keep": 0}, {"images": ("crop", 0), "verifier": ("part", 0)}, (280, 0),
                 "Score of the part")  # fmt: skip
    verifier = Node("graph", "NSScoreFromGraph", {}, {"score": ("score", 3)}, (280, 0))
    both = Node("both", "NSVerifierEnsemble", {"weight_1": 1.0, "weight_2": 1.0, "mode": "rank mean"},
                {"verifier_1": ("clipscore", 0), "verifier_2": ("graph", 0)}, (330, 500))  # fmt: skip
    search = Node(
        "search", "NSSearchSampler",
        {"seed": SEED, "control_after_generate": "fixed", **RUN, "denoise": 1.0, "budget": 16, "keep": 1},
        {"model": ("ckpt", 0), "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": ("latent", 0),
         "vae": ("ckpt", 2), "verifier": ("both", 0)}, (340, 760),
    )  # fmt: skip
    text = """
### Any nodes as a verifier
What lies between **Candidate Image** and **Score from Graph** is run for each candidate. Here: the left half is cut out, and
CLIP scores it against *a red fox*. Together with the score of the whole picture, it searches for the fox on the left.

**Change:** put any nodes there that turn an image into a number: score nodes of other packs, a face crop, math.
"""
    return Graph("score_with_any_nodes", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · Nodes that score a part", PROMPTS, ((part, image, crop), (score, verifier))), note(text, (352, 250))),
        (Group("3 · The whole and the part", JUDGE, ((clip_score(), both),)),),
        (Group("4 · Search", SEARCH, ((search,),)),),
        (Group("5 · Result", RESULT, (
            (Node("save", "SaveImage", {"filename_prefix": "noise-search"}, {"images": ("search", 0)}, (400, 400)),
             Node("plot", "PreviewImage", {}, {"images": ("search", PLOT_OUTPUT)}, (400, 290), "Best score against model calls")),
        )),),
    ))  # fmt: skip


def paper_ensemble() -> Graph:
    aesthetic = Node("aesthetic", "NSAestheticScore", {"model_name": HEAD_FILE["name"], "clip_name": CLIP_FILE["name"]},
                     size=(330, 0), models=(HEAD_FILE, CLIP_FILE))  # fmt: skip
    reward = Node("reward", "NSImageReward", {"model_name": IMAGE_REWARD_FILE["name"]}, {"prompt": ("prompt", 0)}, (330, 150),
                  models=(IMAGE_REWARD_FILE,))  # fmt: skip
    pick = Node("pick", "NSPickScore", {"model_name": PICK_SCORE_FILE["name"]}, {"prompt": ("prompt", 0)}, (330, 150),
                "PickScore: held out, never chooses", (PICK_SCORE_FILE,))  # fmt: skip
    both = Node("both", "NSVerifierEnsemble", {"weight_1": 1.0, "weight_2": 1.0, "weight_3": 1.0, "mode": "rank mean"},
                {"verifier_1": ("aesthetic", 0), "verifier_2": ("clipscore", 0), "verifier_3": ("reward", 0)},
                (330, 500))  # fmt: skip
    search = Node(
        "search", "NSSearchSampler",
        {"seed": SEED, "control_after_generate": "fixed", **RUN, "denoise": 1.0, "budget": 16, "keep": 1},
        {"model": ("ckpt", 0), "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": ("latent", 0),
         "vae": ("ckpt", 2), "verifier": ("both", 0), "held_out": ("pick", 0)}, (340, 760),
    )  # fmt: skip
    text = """
### The paper's ensemble
Aesthetics, fit to the prompt and human preference, joined by their mean rank (arXiv 2501.09732). **PickScore** never chooses:
the report shows by it whether the winner is better, or only fooled the three.

**Needed in models/clip_vision**
- *clip-vit-large-patch14.safetensors*: model.safetensors of openai/clip-vit-large-patch14, renamed
- *PickScore_v1.safetensors*: model.safetensors of yuvalkirstain/PickScore_v1, renamed

**Needed in models/verifiers**
- *ImageReward.pt* of THUDM/ImageReward
- *vocab.txt* of google-bert/bert-base-uncased
- *sac+logos+ava1-l14-linearMSE.pth* of github.com/christophschuhmann/improved-aesthetic-predictor

All but the last are on huggingface.co. ComfyUI lists what is missing, but never *vocab.txt*; where it offers no download,
fetch the file yourself.
"""
    return Graph("paper_ensemble", (
        (note(text, (380, 440)),),
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · The paper's verifiers", JUDGE, ((aesthetic, clip_score(), reward),)),),
        (Group("3 · Ensemble, and a witness", PROMPTS, ((both, pick),)),),
        (Group("4 · Search", SEARCH, ((search,),)),),
        (Group("5 · Result", RESULT, (
            (Node("save", "SaveImage", {"filename_prefix": "noise-search"}, {"images": ("search", 0)}, (400, 400)),
             Node("plot", "PreviewImage", {}, {"images": ("search", PLOT_OUTPUT)}, (400, 290), "Best score against model calls")),
            (Node("report", "PreviewAny", {}, {"source": ("search", 7)}, (330, 734), "Report"),),
        )),),
    ))  # fmt: skip


GRAPHS = [text_to_image(), advanced(), reuse(), score_batch(), any_nodes(), paper_ensemble()]

BUILD = """
async ({columns, gap, groupGap, pad, head}) => {
  app.graph.clear()
  const made = {}, boxes = []
  let x = 0
  for (const groups of columns) {
    let y = 0, widest = 0
    for (const group of groups) {
      const titled = group.title ? 1 : 0
      const inside = {x: x + pad * titled, y: y + (pad + head) * titled}
      let bottom = inside.y, columnX = inside.x
      for (const column of group.columns) {
        let nodeY = inside.y, wide = 0
        for (const spec of column) {
          const node = LiteGraph.createNode(spec.type)
          if (!node) throw new Error('no node ' + spec.type)
          node.id = spec.id
          app.graph.add(node)
          for (const [name, value] of Object.entries(spec.values)) {
            const widget = name ? node.widgets.find(w => w.name === name) : node.widgets[0]
            if (!widget) throw new Error(spec.type + ' has no widget ' + name)
            widget.value = value
          }
          if (spec.title) node.title = spec.title
          if (spec.collapsed) node.flags.collapsed = true
          if (spec.models.length) node.properties.models = spec.models
          const least = node.computeSize()
          const low = spec.size[1] || least[1] + (spec.type.startsWith('NS') ? 36 : 0)  // Nodes 2.0 are taller
          node.setSize([Math.round(Math.max(spec.size[0], 10)), Math.round(Math.max(low, least[1]))])
          node.pos = [columnX, nodeY + 30]
          made[spec.key] = node
          nodeY += 30 + (spec.collapsed ? 0 : node.size[1]) + gap
          wide = Math.max(wide, node.size[0])
        }
        bottom = Math.max(bottom, nodeY - gap)
        columnX += wide + gap
      }
      const right = columnX - gap
      if (titled) boxes.push([group, [x, y, right + pad - x, bottom + pad - y]])
      widest = Math.max(widest, right + pad * titled - x)
      y = bottom + pad * titled + groupGap
    }
    x += widest + groupGap
  }
  for (const groups of columns) for (const group of groups) for (const column of group.columns) for (const spec of column)
    for (const [input, [key, slot]] of Object.entries(spec.links)) {
      const to = made[spec.key]
      const index = to.inputs.findIndex(i => i.name === input)
      if (index < 0) throw new Error(spec.type + ' has no input ' + input)
      if (!made[key].connect(slot, to, index)) throw new Error(spec.type + '.' + input + ' was not connected')
    }
  for (const [group, bounds] of boxes) {
    const box = new LiteGraph.LGraphGroup(group.title)
    box.color = group.color
    box.font_size = 20
    box.pos = bounds.slice(0, 2)
    box.size = bounds.slice(2)
    app.graph.add(box)
  }
  await new Promise(done => setTimeout(done, 300))
  return JSON.parse(JSON.stringify(app.graph.serialize()))
}
"""


BOUNDS = """() => {
  const boxes = [...app.graph.groups.map(g => [...g.pos, ...g.size]),
                 ...app.graph.nodes.map(n => [n.pos[0], n.pos[1] - 30, n.size[0], n.flags.collapsed ? 30 : n.size[1] + 30])]
  const left = Math.min(...boxes.map(b => b[0])), top = Math.min(...boxes.map(b => b[1]))
  return [left, top, Math.max(...boxes.map(b => b[0] + b[2])) - left, Math.max(...boxes.map(b => b[1] + b[3])) - top]
}"""
QUEUE = """async () => {
  const { api } = window.comfyAPI.api
  const queued = new Promise(done => {
    const post = api.queuePrompt.bind(api)
    api.queuePrompt = async (...args) => { const answer = await post(...args); done(answer.prompt_id); return answer }
  })
  await app.queuePrompt(0)
  return await queued
}"""
ROOM, MARGIN = 220, 14  # pixels: around the graph for the page's own bars, and in the picture


def as_spec(graph: Graph) -> dict[str, Any]:
    """Return a graph as the page's builder takes it. Ids count from 1 in the order of the layout."""
    nodes = [n for column in graph.columns for group in column for inner in group.columns for n in inner]
    ids = {node.key: index for index, node in enumerate(nodes, 1)}
    columns = [
        [{"title": g.title, "color": g.color,
          "columns": [[{**vars(n), "id": ids[n.key]} for n in inner] for inner in g.columns]} for g in column]
        for column in graph.columns
    ]  # fmt: skip
    return {"columns": columns, "gap": 34, "groupGap": 40, "pad": 16, "head": 40}


def on_demo(graph: Graph) -> Graph:
    """Return a graph with the demo's loaders and values, for pictures; its 64-pixel pictures are enlarged to be seen."""
    loaders = tuple(Node(kind, kind, values, size=(310, 0)) for kind, values in DEMO_LOADERS.items())

    def changed(node: Node) -> Node:
        links = {name: STAND_INS[slot] if key == "ckpt" else (key, slot) for name, (key, slot) in node.links.items()}
        if node.type == "NSClipScore":
            links |= {"clip": STAND_INS[1], "clip_vision": CLIP_VISION}
        values = {k: v for k, v in DEMO_VALUES.get(node.type, {}).items() if k not in node.links}
        return replace(node, values={**node.values, **values}, links=links, models=())

    def made(node: Node) -> tuple[Node, ...]:
        if node.type == CHECKPOINT:
            return loaders
        images = node.links.get("images")
        if node.type not in ("SaveImage", "PreviewImage") or images[1] == PLOT_OUTPUT:
            return (changed(node),)
        larger = Node("larger", "ImageScale", {"upscale_method": "nearest-exact", "width": 256, "height": 256},
                      {"image": images}, (300, 0), "Enlarge 64 px", collapsed=True)  # fmt: skip
        return larger, replace(changed(node), links={"images": ("larger", 0)})

    def group(box: Group) -> Group:
        return replace(box, columns=tuple(tuple(m for n in inner for m in made(n)) for inner in box.columns))

    return replace(graph, columns=tuple(tuple(map(group, column)) for column in graph.columns))


def tidy(saved: dict[str, Any], name: str) -> dict[str, Any]:
    """Drop what belongs to the page and not to the workflow; the same graph gives the same file."""
    saved["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"noise-search/{name}"))
    saved["extra"] = {}
    for node in saved["nodes"]:
        node["properties"].pop("ver", None)
        if node["type"].startswith("NS"):
            node["properties"].pop("aux_id", None)
            node["properties"]["cnr_id"] = "noise-search"
    return saved


def build(ui: WebUI, graph: Graph) -> dict[str, Any]:
    """Build a graph in the page and return what the page saves."""
    return ui.page.evaluate(BUILD, as_spec(graph))


def write(ui: WebUI, graph: Graph) -> None:
    """Write both forms of a workflow."""
    saved = tidy(build(ui, graph), graph.name)
    (USER_FORMS / f"{graph.name}.json").write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n", "utf-8")
    ui.load(saved)
    runs = demo_form(ui.to_api())
    (API_FORMS / f"{graph.name}.json").write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n", "utf-8")


def picture(ui: WebUI, graph: Graph) -> Image.Image:
    """Return the page's picture of a graph, cropped to it, after a run with the demo model."""
    build(ui, on_demo(graph))
    left, top, width, height = ui.page.evaluate(BOUNDS)
    ui.page.set_viewport_size({"width": int(width) + 2 * ROOM, "height": int(height) + 2 * ROOM})
    ui.page.evaluate(
        "([left, top]) => { app.canvas.ds.scale = 1; app.canvas.ds.offset = [-left, -top] }",
        [left - ROOM, top - ROOM],
    )
    prompt_id, deadline = ui.page.evaluate(QUEUE), time.monotonic() + 300
    while not (ended := ui.server.history(prompt_id)) and time.monotonic() < deadline:  # its events are the page's own
        time.sleep(0.3)
    if not ended or ended["status"]["status_str"] != "success":
        raise RuntimeError(f"{graph.name}: {ended}")
    ui.page.wait_for_timeout(7000)  # until the page's own notice of the end is gone
    ui.page.evaluate("() => app.canvas.setDirty(true, true)")
    ui.page.wait_for_timeout(700)
    x, y = ui.page.evaluate("() => { const r = app.canvas.canvas.getBoundingClientRect(); return [r.left, r.top] }")
    clip = {"x": x + ROOM - MARGIN, "y": y + ROOM - MARGIN,
            "width": int(width) + 2 * MARGIN, "height": int(height) + 2 * MARGIN}  # fmt: skip
    return Image.open(io.BytesIO(ui.page.screenshot(clip=clip))).convert("RGB")


def save_picture(image: Image.Image, path: Path, width: int, quality: int = 86) -> None:
    """Save a picture at a width, as JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    small.save(path, quality=quality, optimize=True, subsampling=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", action="store_true", help="make the pictures, not the workflows")
    parser.add_argument("--only", choices=NAMES, help="one workflow")
    parser.add_argument("--nodes2", action="store_true", help="pictures by the newer renderer")
    parser.add_argument("--raw", type=Path, help="put full-size pictures there instead")
    args = parser.parse_args()
    chosen = [graph for graph in GRAPHS if args.only in (None, graph.name)]
    with Server() as server, sync_playwright() as playwright:
        if args.pictures:
            write_tiny_files(server.base)
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        server.post("/settings", {"Comfy.Workflow.ShowMissingModelsWarning": False, "Comfy.Minimap.Visible": False})
        for graph in chosen:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            ui = WebUI(page, server, nodes2=args.nodes2)
            if not args.pictures:
                write(ui, graph)
            else:
                image = picture(ui, graph)
                if args.raw:
                    image.save(args.raw / f"{graph.name}.png")
                else:
                    save_picture(image, USER_FORMS / f"{graph.name}.jpg", 1280)
                if graph.name == NAMES[0] and not args.raw:
                    save_picture(image, ROOT / "docs" / "images" / "text_to_image_search.jpg", 1600)
            print(graph.name, *ui.errors, sep="\n  ")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
