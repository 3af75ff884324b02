"""Sharing in ComfyUI's own page: a picture brings its search back, and the search reduces to nodes that render the picture."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from graphs import node, numbered, workflow
from PIL import Image

pytestmark = pytest.mark.browser

SEARCHES = {"NSSearchSampler", "NSSearchSamplerAdvanced"}
KSAMPLER = {"KSampler", "VAEDecode"}
CUSTOM = {"SamplerCustomAdvanced", "VAEDecode"}
PARTS = {"CFGGuider", "KSamplerSelect", "BasicScheduler"}
METHODS = {
    "seed": ("NSRandomSearch", {"draft_steps": 0}),
    "moves": ("NSZeroOrderSearch", {"neighbors": 2, "cosine": 0.8, "on_stall": "keep"}),
    "cuts": ("NSRefinementSearch", {"start": 0.75, "children": 4}),
    "jitter": ("NSRandomSearch", {"draft_steps": 0, "proposal": ["proposal", 0]}),
}
SMALL = {"1": node("PrimitiveString", value=""), "2": node("PreviewAny", source=["1", 0])}
# What stands where the search was, besides what was there: by the kind of the winner's recipe, and the node.
MADE = {
    ("seed", False): KSAMPLER,
    ("seed", True): {"RandomNoise", *CUSTOM},
    ("moves", False): {"NSNoiseFromRecipe", *PARTS, *CUSTOM},
    ("moves", True): {"NSNoiseFromRecipe", *CUSTOM},
    ("cuts", False): {"NSRenderCandidate", "RandomNoise", *PARTS},
    ("cuts", True): {"NSRenderCandidate"},
    ("jitter", False): {"NSJitterConditioning", *KSAMPLER},
    ("jitter", True): {"NSRenderCandidate"},
}


def searching(kind: str, advanced: bool, **changes: Any) -> dict[str, Any]:
    """An API-form search whose winner has a recipe of a kind, with numbers for ids, as the page has them."""
    graph = workflow(**{"seed": 3, "budget": 8, **changes})
    name, inputs = METHODS[kind]
    graph["method"] = node(name, **inputs)
    graph["verifier"] = node("NSImageStatistics", sharpness=1.0, exposure=0.0, colorfulness=0.0, contrast=0.0)
    if kind == "jitter":
        graph["proposal"] = node("NSConditioningJitterProposal", cosine=0.7, same_noise=False)
    if advanced:
        simple = graph["search"]["inputs"]
        graph["noise"] = node("RandomNoise", noise_seed=simple["seed"])
        graph["guider"] = node("CFGGuider", **{name: simple[name] for name in ("model", "positive", "negative", "cfg")})
        graph["sampler"] = node("KSamplerSelect", sampler_name=simple["sampler_name"])
        graph["sigmas"] = node("BasicScheduler", model=["unet", 0], scheduler="simple", steps=simple["steps"], denoise=1.0)
        own = {name: [name, 0] for name in ("noise", "guider", "sampler", "sigmas")}
        shared = ("latent_image", "vae", "verifier", "budget", "keep", "method")
        graph["search"] = node("NSSearchSamplerAdvanced", **own, **{name: simple[name] for name in shared})
    return numbered(graph)


def id_of(graph: dict[str, Any], kind: str) -> str:
    return next(number for number, one in graph.items() if one["class_type"] == kind)


def open_graph(page: Any, graph: dict[str, Any]) -> None:
    """Open an API-form workflow, on a server that has nothing of it in its cache: a node tells the page when it is run."""
    page.server.post("/free", {"free_memory": True})
    page.server.run(SMALL)  # the server may look at what it was asked to free only after the next prompt
    page.page.evaluate("async (graph) => { await app.loadApiJson(graph, 'test') }", graph)
    page.page.wait_for_timeout(300)


def run(page: Any) -> dict[str, Any]:
    """Queue what is on the page; return the outputs of the run, by node."""
    ended = page.page.evaluate(
        """async () => {
          const { api } = await import('/scripts/api.js');
          const ended = new Promise((resolve, reject) => {
            for (const end of ['execution_success', 'execution_error', 'execution_interrupted'])
              api.addEventListener(end, (event) => resolve(event.detail), { once: true });
            setTimeout(() => reject(new Error('the run does not end')), 60000);
          });
          await app.queuePrompt(0);
          const { prompt_id } = await ended;
          for (;;) {
            const entry = (await (await api.fetchApi(`/history/${prompt_id}`)).json())[prompt_id];
            if (entry) return entry;
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
        }"""
    )
    assert ended["status"]["status_str"] == "success", ended["status"]
    return ended["outputs"]


def picture(page: Any, outputs: dict[str, Any]) -> tuple[bytes, np.ndarray]:
    """The one picture that a run saved: its file, its pixels."""
    (entry,) = [one for output in outputs.values() for one in output.get("images", []) if one["type"] == "output"]
    data = page.server.image(entry)
    return data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def types(page: Any) -> list[str]:
    return page.page.evaluate("() => app.graph.nodes.map((node) => node.type)")


def properties(page: Any) -> dict[str, Any]:
    return page.page.evaluate(
        "() => app.graph.nodes.find((node) => node.type.startsWith('NSSearchSampler')).properties.noise_search"
    )


def until(page: Any, condition: str, argument: Any = None) -> None:
    page.page.wait_for_function(condition, arg=argument, timeout=60_000)


def command(page: Any, name: str) -> None:
    page.page.evaluate("(name) => void app.extensionManager.command.execute(name)", name)


def reduce(page: Any) -> None:
    """Reduce the search, and wait until that is done and said."""
    command(page, "noise_search.reduce")
    until(page, "() => !app.canvas.graph.nodes.some((node) => node.type.startsWith('NSSearchSampler'))")
    page.page.get_by_text("Reduced to the plain workflow").first.wait_for()


def toasts(page: Any) -> str:
    return " ".join(page.page.locator(".p-toast-message, [data-testid=toast]").all_inner_texts())


def show_to_page(page: Any, data: bytes) -> None:
    """Have the page open a picture, as it does when one is dropped on it."""
    page.page.evaluate(
        """async (data) => {
          const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
          await app.handleFile(new File([bytes], 'found.png', { type: 'image/png' }));
        }""",
        base64.b64encode(data).decode(),
    )
    until(page, "() => app.graph.nodes.some((node) => node.type.startsWith('NSSearchSampler'))")


@pytest.mark.parametrize("advanced", [False, True], ids=["simple", "advanced"])
@pytest.mark.parametrize("kind", METHODS)
def test_the_plain_workflow_renders_the_very_picture(page, kind, advanced):
    open_graph(page, searching(kind, advanced))
    before = types(page)
    _, found = picture(page, run(page))
    recipe = properties(page)["recipe"]
    named = {"seed": recipe["noise"] != "3" and not recipe.keys() & {"moves", "cuts", "jitter"}}
    assert named.get(kind, kind in recipe), recipe  # with this seed; else choose another

    reduce(page)
    gone = SEARCHES | {METHODS[kind][0], "NSImageStatistics", "NSConditioningJitterProposal", "PreviewAny"}
    kept = [one for one in before if one not in gone and not (one == "RandomNoise" and MADE[kind, advanced] & CUSTOM)]
    assert sorted(types(page)) == sorted([*kept, *MADE[kind, advanced]])
    assert "report → " in toasts(page) and "NSImageStatistics" not in types(page)
    _, again = picture(page, run(page))
    assert abs(found - again).max() <= 1
    _, third = picture(page, run(page))  # no seed of it changes between runs
    assert np.array_equal(again, third)
    assert page.errors == []


def test_a_saved_picture_brings_its_search_back(page):
    """Each picture of two: the page opens it, and the search reduces to the nodes that render this one."""
    graph = searching("moves", False, keep=2)
    search, save = (id_of(graph, kind) for kind in ("NSSearchSampler", "SaveImage"))
    graph[save] = node("NSSaveSearch", images=[search, 0], report=[search, 7], filename_prefix="shared/found")
    open_graph(page, graph)
    before = sorted(types(page))
    outputs = run(page)
    (entries,) = [output["images"] for output in outputs.values() if "noise_search_files" in output]
    links = page.page.evaluate("() => [...document.querySelectorAll('a[download]')].map((link) => [link.text, link.download])")
    stem = entries[0]["filename"].removesuffix(".png")
    assert links == [[kind.upper(), f"{stem}.{kind}"] for kind in ("json", "csv", "html")]
    for entry in entries:
        data = page.server.image(entry)
        page.page.evaluate("() => app.graph.clear()")
        show_to_page(page, data)
        assert sorted(types(page)) == before
        shown = Image.open(io.BytesIO(data))
        assert properties(page)["recipe"] == json.loads(shown.text["noise_search"])["recipe"]
        reduce(page)
        assert "NSSaveSearch" not in types(page) and "SaveImage" in types(page)
        _, again = picture(page, run(page))
        assert abs(np.asarray(shown.convert("RGB")).astype(int) - again).max() <= 1
    assert page.errors == []


def test_pictures_of_a_plain_save_image_reduce_to_the_one_that_the_user_names(page):
    open_graph(page, searching("moves", False, keep=3))
    outputs = run(page)
    (entries,) = [output["images"] for output in outputs.values() if len(output.get("images", [])) == 3]
    data = page.server.image(entries[1])
    page.page.evaluate("() => app.graph.clear()")
    show_to_page(page, data)
    assert len(properties(page)["kept"]) == 3
    command(page, "noise_search.reduce")
    asked = page.page.get_by_role("dialog").filter(has_text="The search kept 3 pictures")
    asked.get_by_role("textbox").fill("2")
    asked.get_by_role("textbox").press("Enter")
    until(page, "() => !app.canvas.graph.nodes.some((node) => node.type.startsWith('NSSearchSampler'))")
    _, again = picture(page, run(page))
    assert abs(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) - again).max() <= 1
    assert page.errors == []


def test_undo_brings_the_search_back(page):
    open_graph(page, searching("seed", False))
    run(page)
    before, found = sorted(types(page)), properties(page)
    links = page.page.evaluate("() => app.graph.links.size")
    reduce(page)
    assert "KSampler" in types(page)
    command(page, "Comfy.Undo")
    until(page, "(count) => app.graph.nodes.length === count", len(before))
    assert sorted(types(page)) == before and properties(page) == found
    assert page.page.evaluate("() => app.graph.links.size") == links
    command(page, "Comfy.Redo")
    until(page, "() => app.graph.nodes.some((node) => node.type === 'KSampler')")
    assert "NSSearchSampler" not in types(page)
    assert page.errors == []


def test_a_search_inside_a_subgraph_is_reduced_there(page):
    open_graph(page, searching("moves", False))
    page.page.evaluate(
        """() => {
          const search = app.graph.nodes.find((node) => node.type === 'NSSearchSampler');
          app.graph.convertToSubgraph(new Set([search]));
        }"""
    )
    _, found = picture(page, run(page))
    page.page.evaluate("() => app.canvas.setGraph(app.graph.nodes.find((node) => node.subgraph).subgraph)")
    assert page.page.evaluate("() => app.canvas.graph.nodes.map((node) => !!node.properties.noise_search?.recipe)") == [True]
    reduce(page)
    inner = page.page.evaluate("() => app.canvas.graph.nodes.map((node) => node.type)")
    assert sorted(inner) == sorted(MADE["moves", False])
    page.page.evaluate("() => app.canvas.setGraph(app.canvas.graph.rootGraph)")
    _, again = picture(page, run(page))
    assert abs(found - again).max() <= 1
    assert page.errors == []


def test_a_search_without_a_recipe_takes_that_of_a_picture(page, tmp_path):
    graph = searching("moves", False)
    open_graph(page, graph)
    data, found = picture(page, run(page))
    file = tmp_path / "found.png"
    file.write_bytes(data)
    open_graph(page, graph)  # as a workflow without the run
    with page.page.expect_file_chooser() as chooser:
        page.page.evaluate("() => void app.extensionManager.command.execute('noise_search.reduce')")
    chooser.value.set_files(file)
    page.page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'NSNoiseFromRecipe')")
    _, again = picture(page, run(page))
    assert abs(found - again).max() <= 1

    open_graph(page, graph)
    file.write_bytes(data[:200])
    with page.page.expect_file_chooser() as chooser:
        page.page.evaluate("() => void app.extensionManager.command.execute('noise_search.reduce')")
    chooser.value.set_files(file)
    page.page.get_by_text("the picture carries no recipe").first.wait_for()
    assert "NSSearchSampler" in types(page) and page.errors == []


NAMED_BY = {
    "its widget": "() => {}",
    "a primitive": """() => {
      const search = app.graph.nodes.find((node) => node.type === 'NSSearchSampler');
      const primitive = LiteGraph.createNode('PrimitiveNode');
      app.graph.add(primitive);
      primitive.connect(0, search, search.inputs.findIndex((input) => input.name === 'sampler_name'));
    }""",
    "the subgraph": """() => {
      const search = app.graph.nodes.find((node) => node.type === 'NSSearchSampler');
      const { subgraph } = app.graph.convertToSubgraph(new Set([search]));
      const [inner] = subgraph.nodes;
      const slot = inner.inputs.find((input) => input.name === 'sampler_name');
      if (slot.link == null) subgraph.addInput('sampler_name', 'COMBO').connect(slot, inner); // newer frontends have done it
      app.canvas.setGraph(subgraph);
    }""",
}


@pytest.mark.parametrize("named_by", NAMED_BY)
def test_samplers_whose_levels_no_stock_scheduler_gives(page, named_by):
    open_graph(page, searching("moves", False, sampler_name="uni_pc"))
    page.page.evaluate(NAMED_BY[named_by])
    _, found = picture(page, run(page))
    inner = "() => app.canvas.graph.nodes.map((node) => node.type)"
    before = page.page.evaluate(inner)
    if "ManualSigmas" not in page.server.object_info():
        command(page, "noise_search.reduce")
        page.page.get_by_text("need the node ManualSigmas").first.wait_for()
        assert page.page.evaluate(inner) == before  # nothing is left half done
        return
    reduce(page)
    assert "ManualSigmas" in page.page.evaluate(inner)
    _, again = picture(page, run(page))
    assert abs(found - again).max() <= 1
    assert page.errors == []


def test_markup_in_names_stays_text_on_the_page(page):
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    dialogs: list[str] = []
    page.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    graph = searching("seed", False)
    search, text = (id_of(graph, kind) for kind in ("NSSearchSampler", "CLIPTextEncode"))
    graph[text]["inputs"]["text"] = markup
    graph["90"] = node("NSSaveSearch", images=[search, 0], report=[search, 7], filename_prefix=f"{markup[:-9]}/{markup[:27]}")
    open_graph(page, graph)
    page.page.evaluate("(title) => app.graph.nodes.forEach((node) => { node.title = `${title} ${node.type}` })", markup)
    run(page)
    reduce(page)
    assert markup in toasts(page) and dialogs == []
    assert page.page.evaluate("() => [...document.images].filter((image) => image.getAttribute('src') === 'x').length") == 0
    assert page.errors == []
