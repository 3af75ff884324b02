"""The help pages: one for every node, with its picture, when to use it, and its settings; and the page finds the picture."""

from __future__ import annotations

import io
import re

import pytest
from make_locales import schemas
from make_node_list import BEGIN, END
from PIL import Image

from inprocess import ROOT
from node_api import NODES

DOCS = ROOT / "web" / "docs"
MOST_BYTES = 25_000
WHEN = re.compile(r"\*\*When to use it:\*\*|\*\*Use it\*\*|^## When", re.MULTILINE)
TABLE = re.compile(f"{BEGIN}.*{END}", re.DOTALL)
NUMBERED = re.compile(r"_[2-9]$")  # of verifier_1 to verifier_8 the page names the ends


def text_of(node_id: str) -> str:
    return (DOCS / node_id / "en.md").read_text(encoding="utf-8")


def test_every_node_has_a_page_and_every_page_a_node():
    assert {path.parent.name for path in DOCS.glob("*/en.md")} == set(NODES)


@pytest.mark.parametrize("node_id", NODES)
def test_the_picture_follows_the_first_paragraph(node_id):
    title, first, picture = text_of(node_id).split("\n\n")[:3]
    assert title.startswith("# ") and first[0] not in "#-|!"
    assert picture == f"![{title[2:]}]({node_id}/{node_id}.webp)"


@pytest.mark.parametrize("node_id", NODES)
def test_the_picture_is_small_and_dark(node_id):
    content = (DOCS / node_id / f"{node_id}.webp").read_bytes()
    assert len(content) <= MOST_BYTES
    picture = Image.open(io.BytesIO(content)).convert("L")
    assert picture.width >= 400
    assert sum(picture.histogram()[:80]) > 0.8 * picture.width * picture.height  # of 256 shades of grey


@pytest.mark.parametrize("node_id", NODES)
def test_the_page_says_when_to_use_the_node(node_id):
    assert WHEN.search(text_of(node_id))


@pytest.mark.comfy
def test_pages_bear_the_nodes_names_and_explain_their_inputs():
    unexplained = {}
    for schema in schemas():
        text = text_of(schema.node_id)
        assert text.startswith(f"# {schema.display_name}\n")
        text = TABLE.sub("", text)  # it explains nothing
        names = [item.id for item in schema.inputs if not NUMBERED.search(item.id)]
        unexplained[schema.node_id] = [name for name in names if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
    assert {node_id: names for node_id, names in unexplained.items() if names} == {}


@pytest.mark.server
def test_the_server_serves_the_pictures(server):
    for node_id in NODES:
        served = server.get(f"/extensions/noise-search/docs/{node_id}/{node_id}.webp")
        assert served == (DOCS / node_id / f"{node_id}.webp").read_bytes()


ALONE = """() => {
    app.graph.clear();
    const node = LiteGraph.createNode('NSPathSearch');
    app.graph.add(node);
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [600 - node.pos[0], 400 - node.pos[1]];
    app.canvas.setDirty(true, true);
}"""


@pytest.mark.browser
def test_the_help_panel_finds_the_picture(page):
    page.page.evaluate(ALONE)
    page.page.wait_for_timeout(500)
    page.page.mouse.click(700, 385)
    page.page.get_by_test_id("info-button").click()
    picture = page.page.locator('img[src$="/docs/NSPathSearch/NSPathSearch.webp"]').first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("async (image) => { await image.decode(); return image.naturalWidth }") >= 400
