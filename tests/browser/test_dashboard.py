"""The dashboard in the search nodes, in both renderers, fed with states as the server sends them."""

from __future__ import annotations

import json
import re

import pytest
from dashboard_states import FakeSearches, event, row, state, workflow

pytestmark = pytest.mark.browser

LOOK_AT = """(id) => {
  const [node, ds] = [app.graph.getNodeById(id), app.canvas.ds];
  ds.scale = 1;
  [ds.offset[0], ds.offset[1]] = [200 - node.pos[0], 900 - node.pos[1] - node.size[1]];
  app.canvas.setDirty(true, true);
}"""
ORDER = """(board) => [...board.querySelectorAll(".nsd-tile")]
  .sort((a, b) => a.ariaPosInSet - b.ariaPosInSet).map(tile => Number(tile.dataset.candidate))"""


@pytest.fixture(scope="module", params=[False, True], ids=["litegraph", "nodes2"])
def shared_page(request, server, browser):
    """One page per renderer for the whole module: opening one takes longer than any of the tests."""
    from webui import WebUI

    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield WebUI(context.new_page(), server, nodes2=request.param)
    context.close()


@pytest.fixture
def ui(shared_page):
    """A page that knows of no search; a test may leave no error of ours in its console."""
    shared_page.page.unroute_all()
    forget = "async () => { (await import('/extensions/noise-search/js/dashboard/extension.js')).searches.store.states.clear() }"
    shared_page.page.evaluate(forget)
    yield shared_page
    assert shared_page.errors == []


@pytest.fixture
def board(ui):
    """A page with one search node whose dashboard shows a running search, in view."""
    return Board(ui, (1, "NSSearchSampler"))


class Board:
    """The dashboard of the first node of a page, and the stand-in server that feeds it."""

    def __init__(self, ui, *nodes):
        self.ui, self.page = ui, ui.page
        self.fake = FakeSearches(self.page)
        ui.load(workflow(*nodes))
        self.element = self.page.locator(".ns-dashboard").first
        self.element.wait_for()
        self.fake.send(state())
        self.look()
        self.fake.drawn(state())
        self.look()  # it grew

    def look(self, node=1):
        self.page.evaluate(LOOK_AT, node)
        self.page.wait_for_timeout(400)

    def text(self, part):
        return self.element.locator(part).first.text_content()

    def order(self):
        return self.element.evaluate(ORDER)

    def tile(self, index):
        return self.element.locator(f'.nsd-tile[data-candidate="{index}"]')

    def with_class(self, name):
        """The candidates whose thumbnails have a class."""
        return sorted(self.element.locator(f".nsd-tile.{name}").evaluate_all("all => all.map(t => Number(t.dataset.candidate))"))

    def button(self, name):
        return self.element.get_by_role("button", name=name, exact=True)

    def buttons(self):
        return self.element.locator("button:visible").all_inner_texts()

    def widget(self, name, node=1):
        find = "([id, name]) => app.graph.getNodeById(id).widgets.find(w => w.name === name).value"
        return self.page.evaluate(find, [node, name])

    def until(self, condition, argument=None):
        self.page.wait_for_function(condition, arg=argument, timeout=10_000)


def test_curve_grows(board):
    steps = "path => path.getAttribute('d').match(/[MHV]/g).join('')"
    line, dot = board.element.locator(".nsd-line"), board.element.locator(".nsd-dot")
    assert line.evaluate(steps) == "MHVHV"  # three points
    x = float(dot.get_attribute("cx"))
    board.fake.update(event(rev=2, curve=[[64, 0.4], [80, 0.5]], curve_from=3, candidates=[]))
    assert line.evaluate(steps) == "MHVHVHVHV"
    assert float(dot.get_attribute("cx")) == pytest.approx(x + 32 * per_call(board), abs=0.3)
    assert board.text(".nsd-curve svg .nsd-value") == "0.500"
    board.fake.update(event(rev=3, curve=[[80, 0.45]], curve_from=3, candidates=[]))  # thinned out
    assert line.evaluate(steps) == "MHVHVHV"
    label = board.element.locator(".nsd-curve svg").get_attribute("aria-label")
    assert label == "best score 0.450 after 80 of 256 model calls; your own seed 0.120"
    assert board.text(".nsd-baseline text") == "your seed 0.120"
    assert board.text(".nsd-budget text") == "budget 256"


def per_call(board):
    """Width of one model call in the curve, in pixels."""
    first = "all => all.map(path => parseFloat(path.getAttribute('d').slice(1)))"
    left, budget = board.element.locator(".nsd-baseline path, .nsd-budget path").evaluate_all(first)
    return (budget - left) / 256


def test_baseline_and_budget_are_where_they_belong(board):
    at = "(b, name) => b.querySelector(name).getAttribute('d').match(/[\\d.]+/g).map(Number)"
    (x, y, _), start = board.element.evaluate(at, ".nsd-baseline path"), board.element.evaluate(at, ".nsd-line")
    assert start[1] == y  # the curve begins at the user's own seed
    assert start[0] == pytest.approx(x + 16 * per_call(board), abs=0.2)


def test_words_and_numbers(board):
    assert board.text(".nsd-phase") == "Searching"
    assert board.text(".nsd-words") == "random search: new noises"
    assert re.fullmatch(r"64 of 256 model calls · \d+ s", board.text(".nsd-numbers"))
    assert re.fullmatch(r"about \d+ s left", board.text(".nsd-left"))
    assert board.element.locator(".nsd-bar").get_attribute("aria-valuenow") == "64"
    board.fake.update(event(rev=2, phase="paused", candidates=[]))  # no time goes by
    assert board.text(".nsd-numbers") == "64 of 256 model calls · 12 s"
    assert board.text(".nsd-left") == "about 37 s left"
    ended = {"phase": "ended", "calls": 256, "seconds": 3725, "left": None, "stopped": "target score reached", "restored": 100}
    board.fake.update(event(rev=3, candidates=[], **ended))
    assert board.text(".nsd-numbers") == "256 of 256 model calls · 100 of them restored from the journal · 1 h 02 min"
    assert board.text(".nsd-words") == "random search: new noises · target score reached"
    assert board.buttons() == ["Copy recipe", "Add recipe node"]


def test_strip_follows_the_scores(board):
    assert board.order() == [2, 1, 0, 3]
    assert board.with_class("nsd-best") == [2]
    board.fake.update(event(rev=2, best=3, candidates=[row(3, 0.9), row(4, status="running"), row(1, 0.2, "discarded")]))
    assert board.order() == [3, 2, 0, 4, 1]
    assert board.with_class("nsd-best") == [3]
    assert board.with_class("nsd-out") == [1]
    edges = [board.tile(i).evaluate("t => new DOMMatrix(t.style.transform).e") for i in board.order()]
    assert edges == sorted(edges) and len(set(edges)) == 5  # side by side, in this order
    board.fake.update(event(rev=3, best=3, candidates=[], dropped=[0, 1]))  # of many, the server tells only of some
    assert board.order() == [3, 2, 4]


def test_strip_says_what_each_candidate_is(board):
    rows = [
        row(0, 0.1), row(1, status="running"), row(2, status="running", look=0.3, thumb="t2"), row(3, status="draft", look=0.2),
        row(4, status="pruned", look=0.05), row(5, status="cut off"), row(6, 0.7, "discarded"), row(7),
    ]  # fmt: skip
    board.fake.update(event(id="other", prompt_id="p9", best=0, candidates=rows))
    assert board.order() == [0, 2, 3, 1, 7, 6, 4, 5]
    badges = {i: board.tile(i).locator(".nsd-badge").text_content() for i in range(8)}
    assert badges == {0: "best", 1: "", 2: "preview", 3: "draft", 4: "pruned", 5: "cut off", 6: "discarded", 7: ""}
    scores = {i: board.tile(i).locator(".nsd-score").text_content() for i in range(8)}
    assert scores == {0: "0.100", 1: "…", 2: "≈ 0.300", 3: "≈ 0.200", 4: "≈ 0.050", 5: "", 6: "0.700", 7: ""}
    assert board.with_class("nsd-out") == [4, 5, 6]
    assert board.tile(2).locator("img").get_attribute("src").endswith("/api/noise_search/thumbs/f00d/t2")
    assert not board.tile(1).locator("img").is_visible()
    assert board.tile(3).get_attribute("aria-label") == "candidate 3, score 0.200, draft"


def test_hover_shows_scores_by_part_and_lineage(board):
    rows = [
        row(0, 0.1), row(1, 0.2, parent=0), row(2, 0.3, parent=1, scores=[0.25, 5.5]),
        row(3, 0.25, parent=2), row(4, 0.28, parent=2), row(5, 0.15, parent=0),
    ]  # fmt: skip
    board.fake.update(event(rev=2, parts=["clip score", "aesthetic score"], candidates=rows))
    board.tile(2).hover()
    assert board.with_class("nsd-ancestor") == [0, 1]
    assert board.with_class("nsd-child") == [3, 4]
    strip = board.element.locator(".nsd-strip")
    assert strip.get_attribute("data-links") == "0>1 1>2 2>3 2>4"
    assert board.element.locator(".nsd-lines > path").count() == 4
    assert board.text(".nsd-family") == "from #1 ← #0 (your seed); led to #3, #4"
    assert board.element.locator(".nsd-parts > *").all_inner_texts() == ["clip score", "0.250", "aesthetic score", "5.500"]
    assert board.text(".nsd-big") == "0.300"
    board.element.locator(".nsd-curve").hover()
    assert board.with_class("nsd-ancestor") == []
    assert board.element.locator(".nsd-lines > path").count() == 0


def test_curve_says_what_is_under_the_mouse(board):
    dot = board.element.locator(".nsd-dot").bounding_box()
    board.page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + 20)
    board.page.mouse.move(dot["x"] + dot["width"] / 2 + 1, dot["y"] + 20)
    assert board.text(".nsd-pointer text") == "48 calls: 0.350"


def test_commands(board):
    path = "/searches/abc/commands"
    board.button("Pause").click()
    board.fake.update(event(rev=2, phase="paused", candidates=[]))
    board.button("Resume").click()
    board.tile(1).click()
    board.button("More like this").click()
    board.button("Discard").click()
    board.button("Keep best & finish").click()
    sent = [
        {"command": "pause"}, {"command": "resume"}, {"command": "more", "candidate": 1},
        {"command": "discard", "candidate": 1}, {"command": "finish"},
    ]  # fmt: skip
    assert board.fake.after(5) == [(path, body) for body in sent]


def test_refused_command_is_said(board):
    board.fake.refuse = "the search has ended <b>already</b>"
    board.button("Pause").click()
    toast = board.page.get_by_text("The search refused the command: the search has ended <b>already</b>").first
    toast.wait_for(timeout=10_000)
    board.button("Pause").click()  # can be tried again
    assert len(board.fake.after(2)) == 2


def test_keyboard(board):
    focused = "() => document.activeElement.dataset.candidate ?? document.activeElement.textContent"
    board.button("Keep best & finish").focus()
    board.page.keyboard.press("Tab")
    assert board.page.evaluate(focused) == "2"  # the best comes first
    for key, where in [("ArrowRight", "1"), ("End", "3"), ("ArrowLeft", "0"), ("Home", "2"), ("ArrowLeft", "2")]:
        board.page.keyboard.press(key)
        assert board.page.evaluate(focused) == where
    board.page.keyboard.press("ArrowRight")
    assert board.element.locator(".nsd-card").get_attribute("data-candidate") == "1"
    board.page.keyboard.press("Delete")
    board.page.keyboard.press("Enter")
    assert board.page.evaluate(focused) == "More like this"
    board.page.keyboard.press("Space")
    board.page.keyboard.press("Escape")
    assert board.page.evaluate(focused) == "1"
    bodies = [body for _, body in board.fake.after(2)]
    assert bodies == [{"command": "discard", "candidate": 1}, {"command": "more", "candidate": 1}]
    assert board.page.evaluate("() => app.graph.nodes.length") == 1  # Delete did not reach the canvas


def test_focus_stays_when_the_order_changes(board):
    board.tile(1).click()
    board.fake.update(event(rev=2, best=1, candidates=[row(1, 0.9)]))
    assert board.order()[0] == 1
    assert board.page.evaluate("() => document.activeElement.dataset.candidate") == "1"


def test_use_as_output_and_back_to_best(board):
    recipe = json.dumps({"noise_search": 1, "noise": "77", "seed": "77"})
    board.fake.recipes = {"t1": recipe}
    used = {"class_type": "NSSearchSampler", "inputs": {"seed": 4711, "steps": 3}}
    board.fake.history = {"p1": {"prompt": [1, "p1", {"1": used}, {}, []]}}
    board.fake.update(event(rev=2, phase="ended", left=None, candidates=[]))
    board.tile(1).click()
    board.button("Use as output").click()
    board.until("() => app.graph.getNodeById(1).widgets.find(w => w.name === 'choose').value !== ''")
    ((_, posted),) = board.fake.after(1)
    inputs = posted["prompt"]["1"]["inputs"]
    # The seed had changed by itself after the search was queued: the same search needs the same seed.
    assert (inputs["choose"], inputs["seed"], inputs["steps"]) == (recipe, 4711, 20)
    assert board.widget("control_after_generate") == "fixed"
    board.fake.update(event(rev=3, prompt_id="p1", phase="ended", chosen=1, candidates=[]))
    assert board.text(".nsd-note span") == "The output is #1, your choice; the best is #2."
    board.button("Back to best").click()
    board.until("() => app.graph.getNodeById(1).widgets.find(w => w.name === 'choose').value === ''")
    assert board.fake.after(2)[1][1]["prompt"]["1"]["inputs"]["choose"] == ""


def end_and_use(board, **queued):
    """Have the search end, press "Use as output" for candidate 1, and return what the page queues: inputs by node."""
    board.fake.recipes = {"t0": json.dumps({"noise_search": 1, "noise": "12", "seed": "12"}), "t1": '{"noise_search": 1}'}
    for name, value in queued.items():
        setattr(board.fake, name, value)
    board.fake.update(event(rev=2, phase="ended", left=None, candidates=[]))
    board.tile(1).click()
    board.button("Use as output").click()
    ((_, posted),) = board.fake.after(1)
    return {name: one["inputs"] for name, one in posted["prompt"].items()}


def test_use_as_output_while_the_rest_of_the_workflow_runs(board):
    used = {"1": {"class_type": "NSSearchSampler", "inputs": {"seed": 4711}}}
    assert end_and_use(board, running=[[0, "p0", {}, {}, []], [1, "p1", used, {}, []]])["1"]["seed"] == 4711


def test_use_as_output_when_the_server_forgot_the_prompt(board):
    inputs = end_and_use(board)["1"]
    assert inputs["seed"] == 12  # of candidate 0
    assert json.loads(inputs["choose"]) == {"noise_search": 1}


def test_use_as_output_where_a_primitive_gives_the_seed(board):
    board.page.evaluate(
        """() => {
          const [search, primitive] = [app.graph.getNodeById(1), LiteGraph.createNode("PrimitiveNode")];
          app.graph.add(primitive);
          primitive.connect(0, search, search.inputs.findIndex(input => input.name === "seed"));
          primitive.widgets[0].value = 999;
          primitive.widgets.find(widget => widget.name === "control_after_generate").value = "randomize";
        }"""
    )
    used = {"1": {"class_type": "NSSearchSampler", "inputs": {"seed": 4711}}}
    assert end_and_use(board, history={"p1": {"prompt": [1, "p1", used, {}, []]}})["1"]["seed"] == 4711
    of_primitive = "() => app.graph.nodes.find(n => n.type === 'PrimitiveNode').widgets.map(w => w.value)"
    assert board.page.evaluate(of_primitive)[:2] == [4711, "fixed"]


def test_use_as_output_in_a_subgraph_that_is_given_its_seed(ui):
    board = Board(ui, (1, "NSSearchSampler"))
    where = ui.page.evaluate(
        """() => {
          const { subgraph, node } = app.graph.convertToSubgraph(new Set([app.graph.getNodeById(1)]));
          const inner = subgraph.nodes.find(n => n.type === "NSSearchSampler");
          for (const [name, type] of [["seed", "INT"], ["choose", "STRING"]]) {
            const slot = inner.inputs.find(input => input.name === name);
            if (slot.link == null) subgraph.addInput(name, type).connect(slot, inner);  // newer frontends have done it
          }
          node.widgets.find(widget => widget.name === "seed").value = 999;
          window.host = node;
          app.canvas.openSubgraph(subgraph, node);
          return `${node.id}:${inner.id}`;
        }"""
    )
    ui.page.wait_for_timeout(300)
    ui.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    board.fake.recipes = {"t2": '{"noise_search": 1}', "t1": '{"noise_search": 2}'}
    used = {where: {"class_type": "NSSearchSampler", "inputs": {"seed": 4711}}}
    board.fake.history = {"p1": {"prompt": [1, "p1", used, {}, []]}}
    board.fake.update(state(id="inner", node=where, phase="ended"))
    board.element = ui.page.locator('.ns-dashboard[data-id="inner"]')
    board.tile(1).evaluate("tile => tile.click()")
    board.button("Use as output").evaluate("button => button.click()")
    ((_, posted),) = board.fake.after(1)
    inputs = posted["prompt"][where]["inputs"]
    assert (inputs["seed"], inputs["choose"]) == (4711, '{"noise_search": 2}')
    given = "(name) => window.host.widgets.find(widget => widget.name === name).value"
    assert ui.page.evaluate(given, "seed") == 4711  # fixed
    board.fake.update(event(id="inner", node=where, phase="ended", rev=2, chosen=1, candidates=[]))
    board.button("Back to best").evaluate("button => button.click()")
    board.fake.after(2)
    assert ui.page.evaluate(given, "choose") == ""


def test_choice_of_another_search_is_said(board):
    board.page.evaluate("() => { app.graph.getNodeById(1).widgets.find(w => w.name === 'choose').value = '{}' }")
    board.fake.update(event(rev=2, phase="ended", candidates=[]))
    assert board.text(".nsd-note span") == "The chosen candidate is not in this search: the output is the best candidate."
    board.button("Clear the choice").click()
    board.until("() => app.graph.getNodeById(1).widgets.find(w => w.name === 'choose').value === ''")


def test_copy_recipe(board):
    board.fake.recipes = {"t2": '{"noise_search": 1}'}
    board.button("Copy recipe").click()
    board.page.get_by_text("The recipe of #2 is in the clipboard.").first.wait_for(timeout=10_000)
    assert board.page.evaluate("() => navigator.clipboard.readText()") == '{"noise_search": 1}'


def test_copy_recipe_of_a_candidate_without_a_picture(board):
    board.fake.recipes = {"n1": '{"noise_search": 2}'}
    board.fake.update(event(rev=2, candidates=[row(1, 0.2, thumb=None, name="n1")]))
    board.tile(1).click()
    board.button("Copy recipe").click()
    board.page.get_by_text("The recipe of #1 is in the clipboard.").first.wait_for(timeout=10_000)
    assert board.page.evaluate("() => navigator.clipboard.readText()") == '{"noise_search": 2}'


@pytest.mark.parametrize(("extra", "kind"), [
    ({}, "NSNoiseFromRecipe"), ({"cuts": [{}]}, "NSRenderCandidate"), ({"noise": "given"}, "NSRenderCandidate"),
    ({"noise": "given@5"}, "NSRenderCandidate"),
])  # fmt: skip
def test_add_recipe_node(board, extra, kind):
    recipe = json.dumps({"noise_search": 1, "noise": "5", "seed": "5", **extra})
    board.fake.recipes = {"t2": recipe}
    board.fake.update(event(rev=2, phase="ended", candidates=[]))
    board.button("Add recipe node").click()
    board.until("() => app.graph.nodes.length === 2")
    find = """() => app.graph.nodes.filter(n => n.type !== 'NSSearchSampler')
      .map(n => [n.type, n.widgets.find(w => w.name === 'recipe').value, n.pos[0]])[0]"""
    assert board.page.evaluate(find)[:2] == [kind, recipe]
    edge = board.page.evaluate("() => { const n = app.graph.getNodeById(1); return n.pos[0] + n.size[0] }")
    assert board.page.evaluate(find)[2] > edge


def test_many_candidates_cost_little(board):
    rows = [row(i, 0.001 * i) for i in range(500)]
    board.fake.update(event(rev=2, best=499, candidates=rows))
    tiles = board.element.locator(".nsd-tile").count()
    assert 6 <= tiles <= 60  # only what is in view is there
    assert board.order()[:3] == [499, 498, 497]
    count = """(board) => { window.seen = []; window.observer = new MutationObserver(all => window.seen.push(...all));
      window.observer.observe(board, { subtree: true, childList: true, attributes: true, characterData: true }) }"""
    touched = "() => seen.filter(m => m.target.tagName !== 'IMG' && m.target.closest?.('.nsd-strip')).length"
    board.element.evaluate(count)
    # One candidate far down changes: no thumbnail is touched, but for one that comes into view.
    board.fake.update(event(rev=3, best=499, candidates=[row(3, 0.0035)]))
    assert board.page.evaluate(touched) == 0
    # Two swap their places (transform and position of each), two have a new score (text and label of each).
    board.fake.update(event(rev=4, best=499, candidates=[row(498, 0.9985, calls=32), row(497, 0.4975)]))
    assert board.page.evaluate(touched) == 8
    # However many events arrive, it is drawn at most five times a second.
    board.page.evaluate("() => { seen.length = 0 }")
    burst = """(all) => { for (const detail of all) app.api.dispatchEvent(new CustomEvent('noise_search.update', { detail })) }"""
    events = [event(rev=5 + n, calls=70 + n, candidates=[], best=499) for n in range(50)]
    board.page.evaluate(burst, events)
    board.fake.drawn(events[-1])
    drawn = "() => seen.filter(m => m.attributeName === 'data-rev').length"
    assert board.page.evaluate(drawn) <= 2


def test_strip_scrolls_through_all(board):
    board.fake.update(event(rev=2, best=499, candidates=[row(i, 0.001 * i) for i in range(500)]))
    board.tile(499).click()
    board.page.keyboard.press("End")
    assert board.page.evaluate("() => document.activeElement.dataset.candidate") == "0"
    assert board.tile(3).is_visible()
    assert board.element.locator(".nsd-tile").count() <= 60


def test_question_stands_above_the_strip(board):
    asked = {
        "id": "q1", "kind": "pick", "candidates": [0, 1, 2], "best": 2, "seconds_left": None, "asked": 1, "model_ready": False,
    }  # fmt: skip
    board.fake.update(event(rev=2, phase="asking", question=asked, candidates=[]))
    board.look()  # it grew
    assert board.text(".nsd-phase") == "Your turn"
    pictures = board.element.locator(".ns-choice-picture")
    assert pictures.count() == 3
    edges = [board.element.locator(part).bounding_box() for part in (".ns-choice", ".nsd-strip")]
    assert edges[0]["y"] + edges[0]["height"] <= edges[1]["y"]
    pictures.nth(1).click()
    assert board.fake.after(1) == [("/searches/abc/commands", {"command": "answer", "question": "q1", "ranking": [1]})]
    board.fake.update(event(rev=3, question=None, candidates=[]))
    assert not board.element.locator(".ns-choice").is_visible()


def test_nothing_is_drawn_out_of_sight(board):
    board.page.evaluate("() => { app.canvas.ds.offset[0] = 9000; app.canvas.setDirty(true, true) }")
    board.page.wait_for_timeout(600)
    board.fake.send(event(rev=2, words="unseen", candidates=[]))
    board.page.wait_for_timeout(600)
    assert board.element.get_attribute("data-rev") == "1"
    board.look()
    board.fake.drawn(state(rev=2))
    assert board.text(".nsd-words") == "unseen"


def test_two_nodes_each_show_their_own(ui):
    board = Board(ui, (1, "NSSearchSampler"), (2, "NSSearchSamplerAdvanced"))
    board.fake.send(state(id="second", node="2", words="the second", prompt_id="p1"))
    board.look(2)
    board.fake.drawn(state(id="second"))
    words = board.page.locator(".nsd-words").all_text_contents()
    assert words == ["random search: new noises", "the second"]


def test_node_in_a_subgraph(ui):
    board = Board(ui, (1, "NSSearchSampler"), (2, "NSSearchSamplerAdvanced"))
    inside = """() => {
      const { subgraph, node } = app.graph.convertToSubgraph(new Set([app.graph.getNodeById(2)]));
      const inner = subgraph.nodes.find(n => n.type === "NSSearchSamplerAdvanced");
      app.canvas.openSubgraph(subgraph, node);
      return `${node.id}:${inner.id}`;
    }"""
    where = ui.page.evaluate(inside)
    ui.page.wait_for_timeout(300)
    ui.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    assert ":" in where
    board.fake.update(event(id="inner", node=where, words="within"))
    assert ui.page.locator('.ns-dashboard[data-id="inner"] .nsd-words').inner_text() == "within"


def test_a_workflow_that_had_no_id_when_it_was_queued(board):
    board.fake.update(event(id="early", workflow="00000000-0000-0000-0000-000000000000", words="no id then", prompt_id="p2"))
    assert board.text(".nsd-words") == "no id then"


def test_pictures_of_a_batch(board):
    board.fake.update(event(id="row2", row=1, rows=2, words="second picture", candidates=[row(0, 0.5)]))
    tabs = board.element.locator(".nsd-tabs button")
    assert tabs.all_inner_texts() == ["1", "2"]
    assert board.order() == [0]
    tabs.first.click()
    board.fake.drawn(state())
    assert board.order() == [2, 1, 0, 3]
    board.fake.send(event(id="row2", row=1, rows=2, rev=2, candidates=[]))
    board.page.wait_for_timeout(400)
    assert board.order() == [2, 1, 0, 3]  # what was picked stays


def test_reload_finds_the_search_again(board):
    board.fake.searches = [
        state(id="now", rev=7, words="still running"), state(id="old", rev=90, prompt_id="p0", words="an older run"),
        state(id="elsewhere", workflow="11111111-2222-3333-4444-555555555555", words="another workflow"),
    ]  # fmt: skip
    board.ui.load(workflow((1, "NSSearchSampler")))
    board.look()
    board.fake.drawn(board.fake.searches[0])
    board.look()
    assert board.text(".nsd-words") == "still running"
    board.fake.update(event(id="now", rev=8, candidates=[row(9, 0.99)], curve=[[64, 0.99]], curve_from=3))
    assert board.order() == [9, 2, 1, 0, 3]


def test_missed_events_are_made_up_for(board):
    board.fake.searches = [state(rev=9, curve=[[n, 0.1 * n] for n in range(1, 9)], candidates=[row(n, 0.1) for n in range(8)])]
    board.fake.send(event(rev=8, curve=[[8, 0.8]], curve_from=7, candidates=[row(7, 0.1)]))  # 4 to 7 never came
    board.fake.drawn(board.fake.searches[0])
    assert board.order() == list(range(8))
    board.fake.send(event(rev=5, words="late", candidates=[]))  # overtaken on the way
    board.page.wait_for_timeout(400)
    assert board.text(".nsd-words") == "random search: new noises"


def test_a_page_that_comes_late_gets_the_whole(board):
    board.fake.searches = [state(id="late", rev=3, prompt_id="p2", candidates=[row(n, 0.1) for n in range(8)])]
    board.fake.send(event(id="late", rev=3, prompt_id="p2", candidates=[row(7, 0.1)]))  # its curve is new as a whole
    board.fake.drawn(board.fake.searches[0])
    assert board.order() == list(range(8))
    board.fake.searches = [state(id="late", rev=6, prompt_id="p2", candidates=[row(n, 0.1) for n in range(12)])]
    board.fake.send(event(id="late", rev=6, prompt_id="p2", candidates=[row(11, 0.1)]))  # 8 to 10 came in 4 and 5
    board.fake.drawn(board.fake.searches[0])
    assert board.order() == list(range(12))


def test_an_event_that_overtakes_an_answer_is_not_lost(board):
    answers = [state(rev=rev, words=f"state {rev}") for rev in (5, 6)]

    def answer(route):
        if len(answers) == 2:
            board.fake.send(event(rev=6, words="state 6", candidates=[]))  # before the answer, which is older
        route.fulfill(json=answers.pop(0))

    board.page.route(re.compile("/noise_search/searches/abc$"), answer)
    board.fake.send(event(rev=5, words="state 5", candidates=[]))
    board.fake.drawn(state(rev=6))
    assert board.text(".nsd-words") == "state 6"


def test_a_search_that_the_server_lost_has_failed(board):
    board.fake.searches = [state(id="other", node="7")]
    board.fake.send(None, "reconnected")
    board.element.and_(board.page.locator('[data-phase="failed"]')).wait_for(timeout=10_000)
    assert board.text(".nsd-words").startswith("The server no longer has this search")
    assert board.text(".nsd-left") == "" and board.order() == [2, 1, 0, 3]


def test_time_to_answer_runs_out_however_often_it_is_drawn(board):
    asked = {"id": "q1", "kind": "pick", "candidates": [0, 1], "best": 0, "seconds_left": 30.0, "timeout": 30.0, "asked": 0,
             "model_ready": False, "accuracy": ""}  # fmt: skip
    board.fake.update(event(rev=2, phase="asking", question=asked, candidates=[]))
    board.page.wait_for_timeout(2500)
    board.fake.send(state(id="elsewhere", node="77", prompt_id="p2"))  # all are drawn anew
    board.page.wait_for_timeout(600)
    assert int(board.text(".ns-left").split()[0]) <= 27


def test_output_of_a_run_is_shown(board):
    done = state(id="done", rev=3, prompt_id="p5", phase="ended", left=None, words="all spent")
    board.fake.send({"node": "1", "output": {"noise_search": [done]}, "prompt_id": "p5"}, "executed")
    board.fake.drawn(done)
    assert board.text(".nsd-phase") == "Done"
    again = state(id="again", rev=1, prompt_id="p6", phase="ended", words="from the history")
    board.page.evaluate("(out) => { app.nodeOutputs = { 1: { noise_search: [out] } } }", again)
    board.fake.drawn(again)
    assert board.text(".nsd-words") == "from the history"


SUMMARY = "() => app.graph.getNodeById(1).properties.noise_search ?? null"


def test_what_was_found_goes_to_the_workflow_that_was_queued(board):
    """Another workflow may be open when a run ends, and its nodes have the same ids."""
    other = "11111111-2222-3333-4444-555555555555"
    found = {"noise_search": [state(id="found", workflow=other, phase="ended")], "noise_search_found": [{"recipe": "theirs"}]}
    board.fake.send({"node": "1", "output": found, "prompt_id": "p1"}, "executed")
    assert board.page.evaluate(SUMMARY) is None
    board.ui.load({**workflow((1, "NSSearchSampler")), "id": other})
    assert board.page.evaluate(SUMMARY) == {"recipe": "theirs"}
    found = {"noise_search": [state(id="own", workflow=other, phase="ended")], "noise_search_found": [{"recipe": "own"}]}
    board.fake.send({"node": "1", "output": found, "prompt_id": "p2"}, "executed")
    assert board.page.evaluate(SUMMARY) == {"recipe": "own"}


def test_forget_menu(board):
    items = """() => {
      const node = app.graph.getNodeById(1), options = [];
      if (app.collectNodeMenuItems) options.push(...app.collectNodeMenuItems(node));
      node.getExtraMenuOptions?.(app.canvas, options);
      return options.filter(o => o?.content?.startsWith("Forget this search"));
    }"""
    assert board.page.evaluate(f"() => ({items})().length") == 1
    board.page.evaluate(f"() => {{ ({items})()[0].callback() }}")
    board.page.get_by_role("button", name="Confirm").click()
    board.element.locator(".nsd-idle").wait_for(timeout=10_000)
    assert board.fake.posted == [("/forget", {"id": "abc"})]
    assert board.page.evaluate(f"() => ({items})().length") == 0


def test_it_grows_with_the_node(board):
    width = "() => Number(document.querySelector('.nsd-curve svg').getAttribute('viewBox').split(' ')[2])"
    height = "b => b.offsetHeight"
    board.fake.update(event(rev=2, candidates=[row(i, 0.01 * i) for i in range(40)], best=39))
    before, columns, tall = board.page.evaluate(width), len(first_row(board)), board.element.evaluate(height)
    drag_corner(board, 200, 60)
    board.until(f"(old) => ({width})() > old + 80", before)
    assert len(first_row(board)) > columns
    assert board.element.evaluate(height) == pytest.approx(tall + 60, abs=4)
    drag_corner(board, -440, 0)
    stacked = """() => {
      const [curve, card] = [".nsd-curve", ".nsd-card"].map(n => document.querySelector(n).getBoundingClientRect());
      return card.top >= curve.bottom;
    }"""
    board.until(stacked)


def drag_corner(board, right, down):
    """Drag the lower right corner of the node, as a user does."""
    corner = """() => {
      const node = app.graph.getNodeById(1), body = document.querySelector('[data-node-id="1"]');
      const box = body?.getBoundingClientRect();
      if (box?.width) return [box.right, box.bottom];
      const { offset } = app.canvas.ds, area = app.canvas.canvas.getBoundingClientRect();
      return [0, 1].map(i => node.pos[i] + node.size[i] + offset[i] + (i ? area.top : area.left));
    }"""
    x, y = (edge - 4 for edge in board.page.evaluate(corner))
    board.page.mouse.move(x, y)
    board.page.mouse.down()
    board.page.mouse.move(x + right, y + down, steps=5)
    board.page.mouse.up()
    board.page.wait_for_timeout(300)


def first_row(board):
    """The candidates in the strip's first row."""
    return board.element.evaluate("""(b) => [...b.querySelectorAll(".nsd-tile")]
      .filter(t => new DOMMatrix(t.style.transform).f === 0).map(t => t.dataset.candidate)""")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_readable_in_every_theme(board, theme):
    board.page.evaluate("(theme) => app.extensionManager.setting.set('Comfy.ColorPalette', theme)", theme)
    board.page.wait_for_timeout(300)
    contrast = """(board) => {
      const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      const light = (css, under) => {
        for (const color of [under, css]) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1) }
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => (v / 255) ** 2.2);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const back = getComputedStyle(board).backgroundColor, ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      return [".nsd-words", ".nsd-numbers", ".nsd-family"].map(n =>
        ratio(light(getComputedStyle(board.querySelector(n)).color, back), light(back, back)));
    }"""
    assert min(board.element.evaluate(contrast)) > 4.5
    board.page.evaluate("() => app.extensionManager.setting.set('Comfy.ColorPalette', 'dark')")


def test_letters_grow_when_zoomed_out(board):
    size = "() => parseFloat(getComputedStyle(document.querySelector('.nsd-words')).fontSize)"
    assert board.page.evaluate(size) == 12
    board.page.evaluate("() => { app.canvas.ds.scale = 0.4; app.canvas.setDirty(true, true) }")
    board.until("() => parseFloat(getComputedStyle(document.querySelector('.nsd-words')).fontSize) === 21")


def test_it_is_in_no_workflow(board):
    inputs = board.ui.to_api()["1"]["inputs"]
    assert "noise_search" not in inputs
    saved = board.page.evaluate("() => app.graph.serialize().nodes[0]")
    names = board.page.evaluate("() => app.graph.getNodeById(1).widgets.map(w => w.name)")
    assert names[-1] == "noise_search"
    assert len(saved["widgets_values"]) == len(names) - 1


def test_hostile_text_stays_text(board):
    words = "<img src=x onerror='window.hacked = 1'>"
    bad = row(2, 0.35, scores=[1, 2], thumb='"><script>')
    board.fake.update(event(rev=2, words=words, parts=[words, words], candidates=[bad]))
    assert board.text(".nsd-words") == words
    assert board.element.locator("dt").first.inner_text() == words
    assert board.page.evaluate("() => window.hacked") is None


def test_a_graph_that_is_replaced_leaves_nothing_behind(ui):
    """An undo, and a switch of workflows, replace the whole graph; nodes in subgraphs are not told that they are removed."""
    ui.page.evaluate(
        """() => {
          const [start, stop] = [window.setInterval, window.clearInterval];
          window.running = new Set();
          window.setInterval = (action, ...rest) => {
            const id = start(action, ...rest);
            if (new Error().stack.includes("noise-search")) window.running.add(id);
            return id;
          };
          window.clearInterval = (id) => { window.running.delete(id); stop(id); };
        }"""
    )
    Board(ui, (1, "NSSearchSampler"))
    ui.page.evaluate("() => { app.graph.convertToSubgraph(new Set([app.graph.getNodeById(1)])); }")
    for _ in range(3):
        ui.page.evaluate("async () => { await app.loadGraphData(app.graph.serialize()); }")
        open_it = "() => { const node = app.graph.nodes.find(n => n.subgraph); app.canvas.openSubgraph(node.subgraph, node); }"
        ui.page.evaluate(open_it)
        ui.page.wait_for_timeout(300)
        ui.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        ui.page.locator(".ns-dashboard").last.wait_for()
        ui.page.wait_for_timeout(500)
    assert ui.page.evaluate("() => window.running.size") <= 1


def test_it_goes_with_its_node(board):
    board.page.evaluate("() => { app.graph.remove(app.graph.getNodeById(1)) }")
    board.element.wait_for(state="detached", timeout=10_000)
    board.fake.send(event(rev=2, candidates=[]))
    board.page.wait_for_timeout(300)
