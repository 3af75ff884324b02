"""The list of nodes that ComfyUI-Manager reads, and the table in docs/nodes.md, made from the live schemas.

python tools/make_node_list.py

`node_list.json` names every node: Manager's scanner finds no literal of nodes that are made from specs. In docs/nodes.md a
node that has no row yet gets one at the end of its category's table; rows are edited by hand from then on.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from pack import node_classes
from source import ROOT

NODE_LIST = ROOT / "node_list.json"
TABLES = ROOT / "docs" / "nodes.md"
# Category: the title under which docs/nodes.md has its table.
TITLES = {
    "noise search": "Search",
    "noise search/methods": "Methods",
    "noise search/proposals": "Proposals and samplers",
    "noise search/verifiers": "Verifiers",
}
ROW = re.compile(r"^\| .+ \| \[`(NS\w+)`\]", re.MULTILINE)


def node_list(schemas: list[Any]) -> str:
    """Return the content of node_list.json: display names by id, in menu order."""
    return json.dumps({schema.node_id: schema.display_name for schema in schemas}, indent=1) + "\n"


def row(schema: Any) -> str:
    """Return a node's row: its name, its id as a link to its help page, and the first sentence of its description."""
    node_id, does = schema.node_id, re.split(r"(?<=[.:]) ", schema.description)[0].rstrip(".:")
    return f"| {schema.display_name} | [`{node_id}`](../web/docs/{node_id}/en.md) | {does[0].lower()}{does[1:]} |"


def with_rows(text: str, schemas: list[Any]) -> str:
    """Return the page of tables with a row for every node that has none.

    Raises:
        ValueError: a node's category has no table.
    """
    known = set(ROW.findall(text))
    for schema in schemas:
        if schema.node_id not in known:
            text = _added(text, schema)
    return text


def _added(text: str, schema: Any) -> str:
    title = TITLES.get(schema.category, "")
    table = re.search(rf"^## {title}\n.*?((?:^\|.*\n)+)", text, re.MULTILINE | re.DOTALL) if title else None
    if table is None:
        raise ValueError(f"{schema.node_id}: docs/nodes.md has no table for the category {schema.category!r}")
    return f"{text[: table.end()]}{row(schema)}\n{text[table.end() :]}"


def main() -> None:
    schemas = [node.define_schema() for node in node_classes()]
    for path, text in (
        (NODE_LIST, node_list(schemas)),
        (TABLES, with_rows(TABLES.read_text(encoding="utf-8"), schemas)),
    ):
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}: {len(schemas)} nodes\n")


if __name__ == "__main__":
    main()
