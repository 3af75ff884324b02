"""ComfyUI's own page in a headless browser.

def test_x(page):                                  # marker: browser; fixture `page` is a `WebUI`
    page.load(json.loads(path.read_text()))        # UI-form workflow; raises when a node is missing
    page.screenshot("/tmp/x.png")
    prompt = page.to_api()                         # the API form that the page would queue
    assert page.errors == []                       # console errors of the pack's own files, and what they use that is deprecated
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from live import Server

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
READY = "() => window.app?.extensionManager && window.app.graph && window.LiteGraph"
# Whatever of the page is deprecated says so each time, not once; an error shows who used it, by the stack.
NO_DEPRECATED = """() => {
  Error.stackTraceLimit = 50;
  LiteGraph.alwaysRepeatWarnings = true;
  LiteGraph.onDeprecationWarning.splice(0, Infinity, (message) => {
    const { stack } = new Error(message);
    if (stack.includes("/extensions/noise-search")) console.error(stack);
  });
}"""


def find_browser() -> str | None:
    """Return the path of an installed browser."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class WebUI:
    """One open page of a running server."""

    def __init__(self, page: Any, server: Server, nodes2: bool = False) -> None:
        self.page, self.server = page, server
        self.errors: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._keep(str(error) + str(getattr(error, "stack", ""))))
        settings = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": nodes2}
        server.post("/settings", settings)
        page.set_default_navigation_timeout(120_000)  # a busy machine may take more than Playwright's 30 s
        page.goto(server.url)
        self._wait_until_ready()

    def reload(self) -> None:
        """Load the page anew, with the settings that the server has by now."""
        self.page.reload()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        self.page.wait_for_function(READY, timeout=60_000)
        self.page.evaluate(NO_DEPRECATED)

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self._keep(f"{message.text} ({message.location.get('url', '')})")

    def _keep(self, text: str) -> None:
        if "/extensions/noise-search" in text:
            self.errors.append(text)

    def missing(self, workflow: dict[str, Any]) -> list[str]:
        """Return the types of a UI-form workflow's nodes that the page does not know."""
        within = [d.get("nodes", []) for d in workflow.get("definitions", {}).get("subgraphs", [])]
        subgraphs = {d.get("id") for d in workflow.get("definitions", {}).get("subgraphs", [])}
        types = {node["type"] for nodes in [workflow["nodes"], *within] for node in nodes} - subgraphs
        known = set(self.page.evaluate("() => Object.keys(LiteGraph.registered_node_types)"))
        return sorted(types - known)

    def load(self, workflow: dict[str, Any]) -> None:
        """Load a UI-form workflow into the page; raise when a node or a part of it went missing."""
        if missing := self.missing(workflow):
            raise LookupError(f"missing nodes: {', '.join(missing)}")
        self.page.evaluate("async (workflow) => { await app.loadGraphData(workflow) }", workflow)
        self.page.wait_for_timeout(300)
        loaded = self.page.evaluate("() => app.graph.nodes.map(n => [n.type, !!n.has_errors])")
        if len(loaded) != len(workflow["nodes"]) or any(bad for _, bad in loaded):
            raise RuntimeError(f"of {len(workflow['nodes'])} nodes the page has {loaded}")

    def to_api(self) -> dict[str, Any]:
        """Return the API form of what is on the page."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def screenshot(self, path: str | Path, fit: bool = True) -> None:
        """Save a picture of the page, with the whole graph in view."""
        if fit:
            self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
            self.page.wait_for_timeout(800)
        self.page.screenshot(path=str(path))
