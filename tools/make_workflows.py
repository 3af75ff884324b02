"""Builds the example workflows of gallery/ in ComfyUI's own page, so that they are what the page itself would save.

    .venv/bin/python tools/make_workflows.py                     UI form, and API form for the tests
    .venv/bin/python tools/make_workflows.py --pictures --nodes2 their pictures, after a run with the demo model

Build the workflows on the oldest ComfyUI (newer pages read what older ones wrote), the pictures on a new one.
"""

from __future__ import annotations

import argparse
import io
import json
import time
import uuid
from pathlib import Path
from typing import Any

from pack import use_test_helpers

use_test_helpers()

from examples import API_FORMS, NAMES, ROOT, USER_FORMS, demo_form
from gallery import GRAPHS
from gallery.on_demo import on_demo
from gallery.parts import Graph
from PIL import Image
from playwright.sync_api import sync_playwright
from tiny_files import write_tiny_files

from live import Server
from webui import FLAGS, WebUI, find_browser

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
            if (widget) widget.value = value
            else if (name !== 'control_after_generate')  // newer pages name it otherwise where it is fixed anyway
              throw new Error(spec.type + ' has no widget ' + name)
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
    ids = {node.key: index for index, node in enumerate(graph.nodes(), 1)}
    columns = [
        [{"title": g.title, "color": g.color,
          "columns": [[{**vars(n), "id": ids[n.key]} for n in inner] for inner in g.columns]} for g in column]
        for column in graph.columns
    ]  # fmt: skip
    return {"columns": columns, "gap": 34, "groupGap": 40, "pad": 16, "head": 40}


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
        write_tiny_files(server.base)
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        server.post("/settings", {"Comfy.Workflow.ShowMissingModelsWarning": False, "Comfy.Minimap.Visible": False})
        for graph in chosen:
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            ui = WebUI(page, server, nodes2=args.nodes2)
            page.wait_for_function("() => app.graph.nodes.length > 0", timeout=60_000)  # the page's own first workflow
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
