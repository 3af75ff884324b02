"""The example workflows, templates and help pages in ComfyUI's own page, in both of its renderers."""

from __future__ import annotations

import json
import urllib.parse

import pytest
from examples import NAMES, ROOT, api_form, demo_form, user_form

from node_api import NODES

pytestmark = pytest.mark.browser


def test_examples_load_and_become_the_tested_api_form(model_files, page):
    for name in NAMES:
        page.load(user_form(name))
        assert demo_form(page.to_api()) == api_form(name), name
        titles = page.page.evaluate("() => app.graph.groups.map(g => g.title)")
        assert titles == [group["title"] for group in user_form(name)["groups"]]
    assert page.errors == []


def test_example_runs_from_the_page(page):
    """The page queues it, and its picture comes up on the node that saves it."""
    page.page.evaluate("async (api) => { await app.loadApiJson(api, 'demo') }", api_form("reuse_a_winner"))
    page.page.wait_for_timeout(300)
    kinds = {node["class_type"] for node in page.to_api().values()}
    assert kinds == {node["class_type"] for node in api_form("reuse_a_winner").values()}
    page.page.evaluate("async () => { await app.queuePrompt(0) }")
    page.page.wait_for_function(
        "() => Object.values(app.nodeOutputs).some(output => output.images?.[0].type === 'output')", timeout=60_000
    )
    assert page.errors == []


@pytest.mark.parametrize("node_id", NODES)
def test_help_page_is_served(server, node_id):
    text = server.get(f"/extensions/noise-search/docs/{node_id}/en.md").decode()
    display = server.object_info()[node_id]["display_name"]
    assert text.startswith(f"# {display}\n"), text.splitlines()[0]
    assert len(text) > 300


def test_templates_are_listed_with_their_pictures(server):
    listed = json.loads(server.get("/workflow_templates"))
    assert sorted(listed["noise-search"]) == sorted(NAMES)
    for name in NAMES:
        path = f"/api/workflow_templates/noise-search/{urllib.parse.quote(name)}"
        assert json.loads(server.get(f"{path}.json")) == user_form(name)
        assert server.get(f"{path}.jpg") == (ROOT / "example_workflows" / f"{name}.jpg").read_bytes()
