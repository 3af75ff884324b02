"""tools/make_node_list.py: every node is in node_list.json, gets a row in docs/nodes.md, and its help page a table."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from make_locales import schemas
from make_node_list import BEGIN, END, NODE_LIST, files, row, settings_table, with_rows, with_settings

PAGE = """# Nodes

## Methods

| node | id | what it does |
|---|---|---|
| One | [`NSOne`](../web/docs/NSOne/en.md) | by hand |

## Verifiers

| node | id | what it does |
|---|---|---|
"""


def toy(node_id: str, category: str = "noise search/methods") -> SimpleNamespace:
    return SimpleNamespace(node_id=node_id, display_name=node_id[2:], category=category, description="Does it: well. Always.")


def test_a_node_without_a_row_gets_one_at_the_end_of_its_table():
    assert row(toy("NSTwo")) == "| Two | [`NSTwo`](../web/docs/NSTwo/en.md) | does it |"
    made = with_rows(PAGE, [toy("NSTwo"), toy("NSOne"), toy("NSThree", "noise search/verifiers")])
    assert made == PAGE.replace("by hand |\n", f"by hand |\n{row(toy('NSTwo'))}\n") + row(toy("NSThree")) + "\n"
    assert with_rows(made, [toy("NSTwo"), toy("NSOne")]) == made


def test_a_category_without_a_table_is_named():
    with pytest.raises(ValueError, match="NSTwo: docs/nodes.md has no table for the category 'elsewhere'"):
        with_rows(PAGE, [toy("NSTwo", "elsewhere")])


def setting(node_input: str, default: object, **more: object) -> SimpleNamespace:
    return SimpleNamespace(id=node_input, default=default, **more)


def test_a_help_page_shows_defaults_and_ranges_where_it_has_a_place_for_them():
    inputs = [
        setting("cosine", 0.95, min=-1.0, max=0.9999), setting("size", 4, min=1, max=64), setting("on", False),
        setting("by", "steps", options=["steps", "sigma"]), SimpleNamespace(id="proposal"),
    ]  # fmt: skip
    schema = SimpleNamespace(inputs=inputs)
    rows = "| cosine | 0.95 | -1 to 0.9999 |\n| size | 4 | 1 to 64 |\n| on | off |  |\n| by | steps | steps, sigma |"
    assert settings_table(schema) == f"| input | default | range |\n|---|---|---|\n{rows}"
    made = with_settings(f"# A\n\n{BEGIN}\n{END}\n\nB\n", schema)
    assert made == f"# A\n\n{BEGIN}\n\n{settings_table(schema)}\n\n{END}\n\nB\n"
    assert with_settings(made, schema) == made
    assert with_settings("# A\n", schema) == "# A\n"


@pytest.mark.comfy
def test_all_of_them_are_up_to_date():
    """If this fails: make docs"""
    wanted = files(schemas())
    assert list(json.loads(wanted[NODE_LIST])) == [schema.node_id for schema in schemas()]
    assert {path: path.read_text(encoding="utf-8") for path in wanted} == wanted
