"""The list of nodes that ComfyUI-Manager reads, and tables in docs/nodes.md and the help pages, made from the live schemas.

python tools/make_node_list.py

`node_list.json` names every node: Manager's scanner finds no literal of nodes that are made from specs. In docs/nodes.md a
node that has no row yet gets one at the end of its category's table; rows are edited by hand from then on.
The help page of a node ends in a table of defaults and ranges where it has the lines that `BEGIN` and `END` are.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
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
HELP = ROOT / "web" / "docs"
BEGIN, END = "<!-- defaults and ranges: make docs -->", "<!-- end -->"
ROW = re.compile(r"^\| .+ \| \[`(NS\w+)`\]", re.MULTILINE)


def node_list(schemas: list[Any]) -> str:
    """Return the content of node_list.json: display names by id, in menu order."""
    return json.dumps({schema.node_id: schema.display_name for schema in schemas}, indent=1) + "\n"


def row(schema: Any) -> str:
    """Return a node's row: its name, its id as a link to its help page, and the first sentence of its description."""
    node_id, does = schema.node_id, re.split(r"(?<=[.:]) ", schema.description)[0].rstrip(".:")
    name = schema.display_name.removesuffix(" (verifier)")
    return f"| {name} | [`{node_id}`](../web/docs/{node_id}/en.md) | {does[0].lower()}{does[1:]} |"


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
    table = re.search(rf"^## {title}\n.*?((?:^\|[^\n]*\n)+)", text, re.MULTILINE | re.DOTALL) if title else None
    if table is None:
        raise ValueError(f"{schema.node_id}: docs/nodes.md has no table for the category {schema.category!r}")
    return f"{text[: table.end()]}{row(schema)}\n{text[table.end() :]}"


def settings_table(schema: Any) -> str:
    """Return the table of a node's inputs with a default: input, default, range or choices."""
    rows = [
        f"| {item.id} | {_shown(item.default)} | {_range(item)} |"
        for item in schema.inputs
        if getattr(item, "default", None) is not None
    ]
    return "\n".join(["| input | default | range |", "|---|---|---|", *rows])


def _shown(value: Any) -> str:
    return (
        {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    )


def _range(item: Any) -> str:
    if options := getattr(item, "options", None):
        return ", ".join(options)
    least, most = getattr(item, "min", None), getattr(item, "max", None)
    return "" if least is None else f"{_shown(least)} to {_shown(most)}"


def with_settings(text: str, schema: Any) -> str:
    """Return a help page with its table of settings as the schema has them; as it is if it has no place for one."""
    begin, end = text.find(BEGIN), text.find(END)
    if begin < 0 or end < begin:
        return text
    return f"{text[: begin + len(BEGIN)]}\n\n{settings_table(schema)}\n\n{text[end:]}"


def files(schemas: list[Any]) -> dict[Path, str]:
    """Return what each of the files should hold."""
    pages = {HELP / schema.node_id / "en.md": schema for schema in schemas}
    return {
        NODE_LIST: node_list(schemas),
        TABLES: with_rows(TABLES.read_text(encoding="utf-8"), schemas),
        **{path: with_settings(path.read_text(encoding="utf-8"), schema) for path, schema in pages.items() if path.exists()},
    }


def main() -> None:
    schemas = [node.define_schema() for node in node_classes()]
    for path, text in files(schemas).items():
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(schemas)} nodes in {NODE_LIST.name}, docs/{TABLES.name} and the tables of web/docs\n")


if __name__ == "__main__":
    main()
