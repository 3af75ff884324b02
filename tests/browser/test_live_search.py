"""A search on the demo model in ComfyUI's own page, watched and steered by hand: nothing is faked."""

from __future__ import annotations

import itertools
import json
import os
import re

import pytest
from graphs import STEPS, loop, node, numbered, twice, workflow
from reported import reports_in

pytestmark = pytest.mark.browser

SHOTS = os.environ.get("NOISE_SEARCH_SHOTS")  # a folder to leave pictures in, to be looked at
STATES = """async () => (await (await app.api.fetchApi(
  `/noise_search/searches?client_id=${app.api.clientId ?? app.api.initialClientId}`)).json())"""
SEARCHES = "() => app.graph.nodes.filter(n => n.type.startsWith('NSSearchSampler')).map(n => Number(n.id))"
MOVE = """([dx, dy]) => {
  const ds = app.canvas.ds;
  [ds.offset[0], ds.offset[1]] = [ds.offset[0] + dx / ds.scale, ds.offset[1] + dy / ds.scale];
  app.canvas.setDirty(true, true);
}"""
LOOK_AT = """(id) => {
  const [node, ds] = [app.graph.getNodeById(id), app.canvas.ds];
  ds.scale = 1;
  [ds.offset[0], ds.offset[1]] = [60 - node.pos[0], 980 - node.pos[1] - node.size[1]];
  app.canvas.setDirty(true, true);
}"""
TO_TOP = """(board) => {
  app.canvas.ds.offset[1] += 120 - board.getBoundingClientRect().top;
  app.canvas.setDirty(true, true);
}"""


@pytest.fixture(scope="module")
def remembering_server():
    """A server that keeps journals."""
    from live import Server

    with Server(NOISE_SEARCH_JOURNAL_MB="500") as running:
        yield running


@pytest.fixture(params=[False, True], ids=["litegraph", "nodes2"])
def open_page(request, remembering_server, browser):
    """Opens pages of the server, each in a browser profile of its own."""
    from webui import WebUI

    contexts = []

    def open_one():
        context = browser.new_context(viewport={"width": 1500, "height": 1000})
        contexts.append(context)
        return Searcher(WebUI(context.new_page(), remembering_server, nodes2=request.param))

    yield open_one
    remembering_server.post("/queue", {"clear": True})
    remembering_server.interrupt()  # a test that failed may leave a search that waits
    for context in contexts:
        context.close()


class Searcher:
    """Somebody at a page with a search in it."""

    def __init__(self, ui):
        self.ui, self.page, self.server = ui, ui.page, ui.server

    def load(self, api):
        """Put an API-form workflow into the page; names become numbers, so that ids are those of the page."""
        self.page.wait_for_function("() => app.graph.nodes.length > 0")  # the page's own first workflow, which would come later
        self.page.evaluate("async (api) => { await app.loadApiJson(api, 'demo') }", numbered(api))
        self.page.wait_for_timeout(500)
        self.ids = {name: number for number, name in enumerate(api, 1)}
        return self

    def board(self, name="search"):
        self.page.evaluate(LOOK_AT, self.ids[name])
        self.page.wait_for_timeout(300)
        boards = self.page.locator(".ns-dashboard")
        order = self.page.evaluate(SEARCHES)
        board = boards.nth(order.index(self.ids[name]))
        board.evaluate(TO_TOP)  # all its buttons in view, however tall it is
        self.page.wait_for_timeout(300)
        return board

    def queue(self):
        self.page.evaluate("async () => { await app.queuePrompt(0) }")

    def states(self, name="search"):
        """What the server says of the page's searches by this node, newest first."""
        return [state for state in self.page.evaluate(STATES) if state["node"] == str(self.ids[name])]

    def state(self, name="search"):
        return next(iter(self.states(name)), None)

    def until(self, condition, name="search", timeout=90.0):
        """Wait until the newest state fulfills a condition; return it."""
        for _ in range(int(timeout / 0.1)):
            state = self.state(name)
            if state is not None and condition(state):
                return state
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"not in {timeout} s; the state is {json.dumps(self.state(name))[:2000]}\n{self.server.log()[-3000:]}")

    def ended(self, prompts=1):
        """Wait until so many prompts of the page have ended; return the last history entry."""
        for _ in range(900):
            done = [entry for entry in json.loads(self.server.get("/history")).values() if self.mine(entry)]
            if len(done) >= prompts:
                return done[-1]
            self.page.wait_for_timeout(100)
        raise TimeoutError(self.server.log()[-3000:])

    def mine(self, entry):
        return entry["prompt"][3].get("client_id") == self.page.evaluate("app.api.clientId ?? app.api.initialClientId")

    def bring(self, element):
        """Move the canvas so that something on it is in view: a node may be taller than the page."""
        box = element.bounding_box()
        self.page.evaluate(MOVE, [300 - box["x"], 450 - box["y"]])
        self.page.wait_for_timeout(300)
        return element

    def press(self, board, name):
        self.bring(board.get_by_role("button", name=name, exact=True)).click()

    def shot(self, name, element=None):
        if SHOTS:
            (element or self.page).screenshot(path=f"{SHOTS}/{name}.png")


BUDGET = 300
seeds = itertools.count(100)  # a search that was run before is taken from its journal


def slow(**changes):
    """A search that takes longer than what is done to it."""
    return workflow(budget=BUDGET, seed=next(seeds), **changes)


def tiles(board):
    return board.locator(".nsd-tile").count()


def thumbs(state):
    return sum(candidate["thumb"] is not None for candidate in state["candidates"])


SHOWS = "id => document.querySelector('.ns-dashboard').dataset.id === id"


@pytest.mark.parametrize("shown", ["both", "search"])
def test_searches_that_another_node_builds(open_page, shown):
    """Two at the node that built them, or at the node of the page that they are copies of, as in a loop."""
    api = {"both": twice, "search": loop}[shown](seed=10 * next(seeds), budget=3)
    user = open_page().load(api)
    user.queue()
    user.ended()
    first, second = reversed(user.states(shown))
    board = user.page.locator(".ns-dashboard")
    user.page.evaluate(LOOK_AT, user.ids[shown])
    board.wait_for(state="attached", timeout=20_000)
    user.page.evaluate(LOOK_AT, user.ids[shown])  # it is as tall as it gets now
    user.page.wait_for_timeout(300)
    board.evaluate(TO_TOP)
    user.page.wait_for_function(SHOWS, arg=second["id"], timeout=20_000)
    assert board.locator(".nsd-tabs button").all_inner_texts() == ["2", "1"]
    press = "button => button.click()"  # the node has grown: another may lie over it
    board.get_by_role("button", name="search 1").evaluate(press)
    user.page.wait_for_function(SHOWS, arg=first["id"], timeout=20_000)
    user.page.wait_for_timeout(500)
    user.shot(f"built-{shown}")
    assert board.get_attribute("data-light") is None  # the page is dark, whichever way its frontend says so
    other = next(row["i"] for row in first["candidates"] if row["i"] != first["best"])
    board.locator(f'.nsd-tile[data-candidate="{other}"]').evaluate(press)
    board.get_by_role("button", name="Use as output", exact=True).evaluate(press)
    user.ended(2)
    again, untouched = reversed([state for state in user.states(shown) if state["prompt_id"] != first["prompt_id"]])
    assert (again["chosen"], untouched["chosen"], untouched["best"]) == (other, None, second["best"])
    assert again["restored"] == again["calls"] and untouched["restored"] == untouched["calls"]
    user.shot(f"chosen-{shown}")
    assert user.ui.errors == []


def test_a_new_node_keeps_its_seed_and_a_saved_one_does_as_it_was_told(open_page):
    user = open_page().load(workflow(budget=3, seed=next(seeds)))
    made = user.page.evaluate(NEW_SEARCH)
    assert made == "fixed"
    assert user.page.evaluate(SAVED_SEARCH) == "randomize"
    assert user.ui.errors == []


CONTROL = "widgets.find(({ name }) => name === 'control_after_generate').value"
NEW_SEARCH = f"""() => {{
  const node = LiteGraph.createNode("NSSearchSampler");
  app.graph.add(node);
  window.made = node;
  return node.{CONTROL};
}}"""
SAVED_SEARCH = f"""async () => {{
  window.made.{CONTROL} = "randomize";
  const [id, saved] = [window.made.id, app.graph.serialize()];
  await app.loadGraphData(JSON.parse(JSON.stringify(saved)));
  return app.graph.getNodeById(id).{CONTROL};
}}"""
INTO_SUBGRAPH = """(ids) => {
  const { subgraph, node } = app.graph.convertToSubgraph(new Set(ids.map(id => app.graph.getNodeById(id))));
  window.opened = () => app.canvas.openSubgraph(subgraph, node);
  return `${node.id}:${subgraph.nodes.find(n => n.type === "NSSearchSampler").id}`;
}"""


IN_ORDER = "sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)"
FIRST_SHOWN = f"""(best) =>
  [...document.querySelectorAll('.nsd-tile')].{IN_ORDER}[0]?.dataset.candidate === String(best)"""


def drawn_points(board):
    return board.locator(".nsd-line").evaluate("path => (path.getAttribute('d') ?? '').match(/H/g)?.length ?? 0")


def test_watch_pause_resume_finish_and_choose_another(open_page):
    user = open_page().load(slow())
    user.queue()
    first = user.until(lambda s: s["phase"] == "running" and len(s["curve"]) > 0)
    board = user.board()
    grown = user.until(lambda s: s["calls"] > first["calls"] and len(s["candidates"]) > 8)
    user.page.wait_for_function("() => document.querySelectorAll('.nsd-tile img').length > 3", timeout=20_000)
    seen = tiles(board)
    user.press(board, "Pause")
    paused = user.until(lambda s: s["phase"] == "paused")
    user.page.wait_for_timeout(1200)
    stopped_at = user.state()["calls"]
    user.page.wait_for_timeout(800)
    assert user.state()["calls"] == stopped_at < BUDGET * STEPS
    assert board.get_attribute("data-phase") == "paused"
    user.shot("paused")
    user.press(board, "Resume")
    more = user.until(lambda s: s["phase"] == "running" and s["calls"] > stopped_at)
    assert len(more["curve"]) >= len(grown["curve"]) and tiles(board) >= min(seen, 8)
    assert drawn_points(board) >= 1
    user.press(board, "Keep best & finish")
    ended = user.until(lambda s: s["phase"] == "ended")
    assert ended["calls"] < BUDGET * STEPS
    entry = user.ended()
    assert entry["status"]["status_str"] == "success"
    report = reports_in(entry["outputs"][str(user.ids["report"])]["text"][0])
    assert report["stopped"] == "you ended it: the best so far is kept"
    assert stopped_at <= paused["calls"] + report["batch"]  # within one model call
    assert report["model_calls"] == ended["calls"] and report["best"]["index"] == ended["best"]
    user.page.wait_for_function(FIRST_SHOWN, arg=ended["best"], timeout=20_000)  # the page hears of the end a little later
    order = board.locator(".nsd-tile").evaluate_all(f"all => all.{IN_ORDER}.map(tile => Number(tile.dataset.candidate))")
    scores = {row["i"]: row["score"] for row in ended["candidates"]}
    shown = [scores[i] for i in order if scores[i] is not None]
    assert shown == sorted(shown, reverse=True)
    user.shot("ended")

    other = next(c["index"] for c in report["candidates"] if c["index"] == report["order"][2])
    user.bring(board.locator(f'.nsd-tile[data-candidate="{other}"]')).click()
    user.press(board, "Use as output")
    chosen = user.until(lambda s: s["phase"] == "ended" and s["chosen"] == other)
    entry = user.ended(2)
    again = reports_in(entry["outputs"][str(user.ids["report"])]["text"][0])
    assert again["kept"][0] == other == chosen["chosen"]
    recalled = again["recalled"]
    assert recalled["candidates"] == len(report["order"]) and recalled["redone"] == 0
    # Nothing was searched anew; the calls of runs that were under way as the user ended it count as they did.
    assert recalled["model_calls"] == again["model_calls"] == report["model_calls"]
    assert again["stopped"] == "your choice comes out; nothing was searched anew"
    user.shot("chosen")
    assert user.ui.errors == []


def test_a_reload_in_the_middle_finds_everything_again(open_page):
    user = open_page().load(slow(keep=2))
    user.queue()
    before = user.until(lambda s: s["phase"] == "running" and len(s["curve"]) > 1 and thumbs(s) > 8)
    user.press(user.board(), "Pause")
    user.until(lambda s: s["phase"] == "paused")
    user.page.wait_for_timeout(500)
    user.page.reload()
    user.page.wait_for_function("() => window.app?.graph?.nodes?.length > 5", timeout=60_000)
    board = user.board()
    user.page.wait_for_function("() => document.querySelector('.ns-dashboard')?.dataset.phase === 'paused'", timeout=30_000)
    assert tiles(board) > 4 and drawn_points(board) >= 1
    assert user.state()["id"] == before["id"]
    user.shot("reloaded")
    user.press(board, "Resume")
    user.until(lambda s: s["calls"] > before["calls"])
    user.press(board, "Keep best & finish")
    user.until(lambda s: s["phase"] == "ended")
    user.page.wait_for_function("() => document.querySelector('.ns-dashboard')?.dataset.phase === 'ended'", timeout=30_000)
    assert user.ui.errors == []


def test_more_like_this_and_discard(open_page):
    user = open_page().load(slow(keep=3))
    user.queue()
    user.until(lambda s: s["phase"] == "running" and sum(c["score"] is not None for c in s["candidates"]) > 8)
    board = user.board()
    user.press(board, "Pause")
    paused = user.until(lambda s: s["phase"] == "paused")
    ranked = sorted((c for c in paused["candidates"] if c["score"] is not None), key=lambda c: -c["score"])
    lost, wanted = ranked[1]["i"], ranked[3]["i"]
    user.bring(board.locator(f'.nsd-tile[data-candidate="{lost}"]')).click()
    user.press(board, "Discard")
    user.bring(board.locator(f'.nsd-tile[data-candidate="{wanted}"]')).click()
    user.press(board, "More like this")
    user.press(board, "Resume")
    user.until(lambda s: any(c["parent"] == wanted and c["state"] == "finished" for c in s["candidates"]))
    user.press(board, "Keep best & finish")
    ended = user.until(lambda s: s["phase"] == "ended")
    assert lost not in [c["i"] for c in ended["candidates"] if c["score"] is not None]
    report = reports_in(user.ended()["outputs"][str(user.ids["report"])]["text"][0])
    assert f"you asked for more like candidate {wanted}: zero-order search went on around it" in report["notes"]
    assert report["candidates"][lost]["discarded"] and lost not in report["kept"]
    assert user.ui.errors == []


def test_picking_by_hand_on_the_dashboard(open_page):
    api = workflow(budget=8, seed=next(seeds), method=["method", 0], verifier=["human", 0])
    api["human"] = node("NSHumanVerifier", set_size=4, timeout=0.0, when_absent="error")
    api["method"] = node("NSZeroOrderSearch", neighbors=3, cosine=0.9, on_stall="keep", draft_steps=0)
    user = open_page().load(api)
    user.queue()
    picked = []
    for number in range(3):
        asking = user.until(lambda s, n=number: s["phase"] == "asking" and s["question"]["asked"] == n)
        board = user.board()
        user.page.wait_for_function("() => document.querySelectorAll('.nsd-question img').length > 1", timeout=20_000)
        user.page.wait_for_timeout(500)
        user.shot(f"question{number}")
        picked.append(asking["question"]["candidates"][1])
        board.locator(".nsd-question button").first.press("2")
    ended = user.until(lambda s: s["phase"] == "ended")
    report = reports_in(user.ended()["outputs"][str(user.ids["report"])]["text"][0])
    assert [choice["ranking"] for choice in report["choices"]] == [[index] for index in picked]
    assert ended["best"] == picked[-1] == report["best"]["index"]
    assert user.ui.errors == []


def test_two_searches_in_one_graph_and_two_browsers(open_page):
    api = workflow(budget=3, seed=next(seeds))
    api["second"] = node("NSSearchSampler", **{**api["search"]["inputs"], "seed": next(seeds)})
    api["save 2"] = node("SaveImage", images=["second", 0], filename_prefix="second")
    one, two = open_page().load(api), open_page().load(workflow(budget=3, seed=next(seeds)))
    one.queue()
    two.queue()
    first, second = (one.until(lambda s: s["phase"] == "ended", name) for name in ("search", "second"))
    other = two.until(lambda s: s["phase"] == "ended")
    assert len({first["id"], second["id"], other["id"]}) == 3
    for user, name, state in ((one, "search", first), (one, "second", second), (two, "search", other)):
        board = user.board(name)
        user.page.wait_for_function(
            "([board, id]) => board.dataset.id === id", arg=[board.element_handle(), state["id"]], timeout=20_000
        )
    assert [s["id"] for s in two.page.evaluate(STATES)] == [other["id"]]
    one.shot("two")
    assert one.ui.errors == two.ui.errors == []


@pytest.mark.parametrize("names", [["search"], ["search", "verifier"]], ids=" with ".join)
def test_a_search_inside_a_subgraph(open_page, names):
    user = open_page().load(workflow(budget=3, seed=next(seeds)))
    where = user.page.evaluate(INTO_SUBGRAPH, [user.ids[name] for name in names])
    assert re.fullmatch(r"\d+:\d+", where)
    user.queue()
    user.ids["search"] = where
    ended = user.until(lambda s: s["phase"] == "ended")
    assert ended["node"] == where and [row["i"] for row in ended["candidates"]] == [0, 1, 2]
    assert user.ended()["outputs"][where]["noise_search"][0]["id"] == ended["id"]
    user.page.evaluate("() => window.opened()")
    user.page.wait_for_timeout(300)
    user.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    board = user.page.locator(f'.ns-dashboard[data-id="{ended["id"]}"][data-phase="ended"]')
    board.wait_for(timeout=20_000)
    board.locator(".nsd-tile img").nth(2).wait_for(timeout=20_000)
    assert tiles(board) == 3 and drawn_points(board) >= 1
    user.shot("subgraph")
    assert user.ui.errors == []


GIVE_SEED = """() => {
  const host = app.graph.nodes.find(node => node.subgraph);
  const inner = host.subgraph.nodes.find(node => node.type === "NSSearchSampler");
  const slot = inner.inputs.find(input => input.name === "seed");
  if (slot.link == null) host.subgraph.addInput("seed", "INT").connect(slot, inner);  // newer frontends have done it
  inner.widgets.find(widget => widget.name === "control_after_generate").value = "randomize";
  window.seed = () => host.widgets.find(widget => widget.name === "seed").value;
  return window.seed();
}"""


def test_another_winner_in_a_subgraph_whose_seed_changes_after_each_run(open_page):
    user = open_page().load(workflow(budget=3, seed=next(seeds)))
    where = user.page.evaluate(INTO_SUBGRAPH, [user.ids["search"]])
    seed = user.page.evaluate(GIVE_SEED)
    user.queue()
    user.ids["search"] = where
    first = user.until(lambda s: s["phase"] == "ended")
    user.page.evaluate("() => window.opened()")
    user.page.wait_for_timeout(300)
    user.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    board = user.page.locator(f'.ns-dashboard[data-id="{first["id"]}"][data-phase="ended"]')
    board.wait_for(timeout=20_000)
    other = next(row["i"] for row in first["candidates"] if row["i"] != first["best"])
    board.locator(f'.nsd-tile[data-candidate="{other}"]').evaluate("tile => tile.click()")
    board.get_by_role("button", name="Use as output", exact=True).evaluate("button => button.click()")
    again = user.until(lambda s: s["phase"] == "ended" and s["id"] != first["id"])
    assert (again["chosen"], again["restored"]) == (other, again["calls"])  # nothing was searched anew
    assert user.page.evaluate("() => window.seed()") == seed
    user.ended(2)
    assert user.ui.errors == []
