"""tools/make_node_list.py: every node is in node_list.json, and gets a row in docs/nodes.md."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from make_locales import schemas
from make_node_list import NODE_LIST, TABLES, node_list, row, with_rows

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


@pytest.mark.comfy
def test_both_files_are_up_to_date():
    """If this fails: make docs"""
    nodes = schemas()
    assert NODE_LIST.read_text(encoding="utf-8") == node_list(nodes)
    assert list(json.loads(node_list(nodes))) == [schema.node_id for schema in nodes]
    text = TABLES.read_text(encoding="utf-8")
    assert with_rows(text, nodes) == text
