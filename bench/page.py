"""CPU of ComfyUI's page while a search of 500 candidates runs in it: with the dashboard, and without the pack's JavaScript.

Measured is what the page's main thread is busy with (DevTools' metrics: all tasks, scripts among them, layout and style), in
a headless Chromium against a real server with the demo model, once in each of the page's two renderers.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from graphs import numbered, workflow  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from live import Server  # noqa: E402
from webui import FLAGS, WebUI, find_browser  # noqa: E402

RENDERERS = {"classic": False, "Nodes 2.0": True}
SECONDS = {"tasks": ("TaskDuration",), "scripts": ("ScriptDuration",), "layout": ("LayoutDuration", "RecalcStyleDuration")}
COLUMNS = ("renderer", "dashboard", "candidates", "wall_s", *(f"{name}_s" for name in SECONDS), "share")
RUN = """async () => {
  const { api } = await import('/scripts/api.js');
  const ended = new Promise((resolve) => {
    for (const end of ['execution_success', 'execution_error', 'execution_interrupted'])
      api.addEventListener(end, () => resolve(end), { once: true });
  });
  await app.queuePrompt(0);
  return await ended;
}"""
LOOK_AT_SEARCH = """() => {
  const search = app.graph.nodes.find((node) => node.type === 'NSSearchSampler');
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [40 - search.pos[0], 60 - search.pos[1]];
  app.canvas.setDirty(true, true);
}"""


def measure(browser: Browser, server: Server, nodes2: bool, dashboard: bool, candidates: int, seed: int) -> dict[str, float]:
    """Run one search in a new page, and return its wall-clock and the seconds its main thread was busy."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    if not dashboard:
        context.route("**/extensions/noise-search/**", lambda route: route.abort())
    page = WebUI(context.new_page(), server, nodes2=nodes2).page
    page.evaluate("async (graph) => { await app.loadApiJson(graph, 'bench') }", numbered(workflow(
        seed=seed, steps=4, budget=candidates
    )))  # fmt: skip
    page.evaluate(LOOK_AT_SEARCH)
    page.wait_for_timeout(3000)  # what loading left to do
    if page.locator(".ns-dashboard").count() != int(dashboard):
        raise RuntimeError(f"the page has {page.locator('.ns-dashboard').count()} dashboards")
    devtools = context.new_cdp_session(page)
    devtools.send("Performance.enable")
    before, started = busy(devtools), time.perf_counter()
    end = page.evaluate(RUN)
    wall, after = time.perf_counter() - started, busy(devtools)
    context.close()
    if end != "execution_success":
        raise RuntimeError(f"the search ended with {end}\n{server.log()[-3000:]}")
    return {"wall_s": wall, **{f"{name}_s": after[name] - before[name] for name in SECONDS}}


def busy(devtools: Any) -> dict[str, float]:
    """Return the seconds that a page's main thread was busy since it was opened."""
    metrics = {one["name"]: one["value"] for one in devtools.send("Performance.getMetrics")["metrics"]}
    return {name: sum(metrics[part] for part in parts) for name, parts in SECONDS.items()}


def main() -> None:
    """Measure all cases, and write them to bench/output/page.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=500)
    args = parser.parse_args()
    if (path := find_browser()) is None:
        print("page: left out, since no Chromium is installed; `make browser` installs one where it can", file=sys.stderr)
        return
    (HERE / "output").mkdir(exist_ok=True)
    with (
        open(HERE / "output" / "page.csv", "w", newline="") as file, Server() as server, sync_playwright() as playwright,
    ):  # fmt: skip
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        cases = [(renderer, dashboard) for renderer in RENDERERS for dashboard in (False, True)]
        for seed, (renderer, dashboard) in enumerate(cases, 1):
            found = measure(browser, server, RENDERERS[renderer], dashboard, args.candidates, seed)
            found["share"] = found["tasks_s"] / found["wall_s"]
            rounded = {name: round(value, 3) for name, value in found.items()}
            writer.writerow({"renderer": renderer, "dashboard": dashboard, "candidates": args.candidates, **rounded})
            file.flush()
            print(f"{renderer:<10} {'with' if dashboard else 'without':<8} {rounded}", flush=True)


if __name__ == "__main__":
    main()
