"""The page fixture itself: a stock workflow loads, a missing node is noticed, a picture is taken."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser


def workflow(node_type: str) -> dict:
    node = {
        "id": 1, "type": node_type, "pos": [100, 100], "size": [300, 130], "flags": {}, "order": 0, "mode": 0,
        "inputs": [], "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": []}], "properties": {},
        "widgets_values": [64, 32, 1, 255],
    }  # fmt: skip
    return {"last_node_id": 1, "last_link_id": 0, "nodes": [node], "links": [], "groups": [], "version": 0.4}


def test_stock_workflow_loads(page, tmp_path):
    page.load(workflow("EmptyImage"))
    inputs = page.to_api()["1"]["inputs"]
    assert (inputs["width"], inputs["height"], inputs["color"]) == (64, 32, 255)
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert page.errors == []


def test_missing_node_is_noticed(page):
    with pytest.raises(LookupError, match="NSNoSuchNode"):
        page.load(workflow("NSNoSuchNode"))


def test_the_page_offers_the_nodes_of_the_pack(page):
    from node_api import NODES

    assert page.missing({"nodes": [{"type": node_id} for node_id in NODES]}) == []
