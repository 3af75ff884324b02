"""README, CONTRIBUTING, docs/ and the workflows: their links lead somewhere, and what they name exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_layers import ORDER

from node_api import NODES

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "demo" / "README.md"])
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
COMMANDS = [*DOCUMENTS, *WORKFLOWS, ROOT / ".pre-commit-config.yaml"]
LINK = re.compile(r'\]\(([^()\s]+)\)|<img src="([^"]+)"')
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"(?<![\w/.-])(?:bench|demo|docs|nodes|search|tests|tools|verifiers|web)/[\w/.-]+\.[a-z.]+\b")
MADE = ("demo/output/", "bench/output/")  # by the commands
TO_WRITE = re.compile(r"^\| `([\w/.]+)` \|", re.MULTILINE)
ROW = re.compile(r"^\| (.+?) \| \[`(NS\w+)`\]\((.+?)\) \| .+ \|$", re.MULTILINE)
STEP = re.compile(r"^\| \d+ \| `([\w/]+\.py)` `([\w.]+)` \|", re.MULTILINE)
WITHOUT_MAKE = ["python demo/setup.py --pure --venv .venv", ".venv/Scripts/pytest --pure -n 4"]  # Windows: what test-pure does


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a page's titles."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(text: str, folder: Path) -> list[str]:
    """Name the links of a page in `folder` that lead to no file or title of this repository."""
    found = []
    for link in (one or other for one, other in LINK.findall(text)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = folder / path
        if not target.exists() or (anchor and anchor not in anchors(read(target) if path else text)):
            found.append(link)
    return found


def code(text: str) -> list[str]:
    """Return a page's pieces of code: its spans, and the lines of its blocks; of a YAML file the commands."""
    blocks = "\n".join(FENCED.findall(text)).splitlines()
    spans = re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    return [*blocks, *spans, *re.findall(r"^ *(?:- )?(?:run|entry): (.+)$", text, re.MULTILINE)]


def make_targets(text: str) -> set[str]:
    """Return the make targets that a page or workflow names."""
    return {found for piece in code(text) for found in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", piece)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    assert dead_links(read(path), path.parent) == []


def test_a_dead_link_is_found() -> None:
    text = "# One title\n[a](#one-title) [b](#two) [c](README.md#license) [d](README.md#none) [e](gone.md) [f](https://x.org/y#z)"
    assert dead_links(text + '<img src="gone.png">', ROOT) == ["#two", "README.md#none", "gone.md", "gone.png"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(path: Path) -> None:
    written = set(TO_WRITE.findall(read(path))) if path.name.startswith("adding-") else set()  # by whoever follows the guide
    named = {found for found in PATH.findall(read(path)) if not found.startswith(MADE)} - written
    assert {found for found in named if not (ROOT / found).exists() and not (path.parent / found).exists()} == set()


@pytest.mark.parametrize("path", COMMANDS, ids=name)
def test_make_targets_that_are_named_exist(path: Path) -> None:
    known = re.findall(r"^([a-z][a-z-]*):", read(ROOT / "Makefile"), re.MULTILINE)
    assert make_targets(read(path)) <= set(known)


def test_the_readme_is_short_and_names_the_test_command() -> None:
    text = read(ROOT / "README.md")
    assert len(text.splitlines()) < 150
    assert {"test", "demo"} <= make_targets(text)


def test_templates_that_the_readme_names_are_shipped() -> None:
    named = set(re.findall(r"\*\*([a-z]+(?:_[a-z]+)+)\*\*", read(ROOT / "README.md")))
    assert named and named <= {path.stem for path in (ROOT / "example_workflows").glob("*.json")}


def test_the_table_of_nodes_has_every_node_under_its_name() -> None:
    """What a node is called is the title of its help page, which another test holds to the node."""
    rows = ROW.findall(read(ROOT / "docs" / "nodes.md"))
    assert sorted(node_id for _, node_id, _ in rows) == sorted(NODES)
    for title, node_id, page in rows:
        assert page == f"../web/docs/{node_id}/en.md"
        assert read(ROOT / "docs" / page).splitlines()[0].removesuffix(" (verifier)") == f"# {title}"


def test_each_step_of_a_candidate_is_where_the_page_says() -> None:
    steps = STEP.findall(read(ROOT / "docs" / "architecture.md"))
    assert len(steps) > 20
    for path, where in steps:
        here: ast.AST = ast.parse(read(ROOT / path))
        for part in where.split("."):
            found = [node for node in ast.iter_child_nodes(here) if getattr(node, "name", None) == part]
            assert found, f"{path} has no {where}"
            here = found[0]


def test_the_picture_of_packages_has_them_in_their_order() -> None:
    """Each arrow of the picture goes one package down; verifiers that do not build on one another share a box."""
    text = read(ROOT / "docs" / "architecture.md")
    for layer, packages in ORDER.items():
        box = re.search(rf"subgraph {layer}\[.*?^    end$", text, re.MULTILINE | re.DOTALL)[0]
        drawn = [part for names in re.findall(r"<b>(.+?)</b>", box) for part in re.split(r",(?: |<br>)", names)]
        assert drawn == [package for package in reversed(packages) if package]


@pytest.mark.parametrize("path", WORKFLOWS, ids=name)
def test_workflows_run_pinned_actions_and_the_commands_of_the_makefile(path: Path) -> None:
    text = read(path)
    actions = re.findall(r"uses: (\S+)", text)
    assert actions and all(re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action) for action in actions)
    assert text.count("persist-credentials: false") == sum(action.startswith("actions/checkout@") for action in actions)
    assert re.findall(r"^permissions: (.+)$", text, re.MULTILINE) == ["{}"]
    assert set(re.findall(r"^ +([\w-]+: (?:read|write))\b", text, re.MULTILINE)) == {"contents: read"}
    commands = re.findall(r"^ *(?:- )?run: (.+)$", text, re.MULTILINE)
    assert [command for command in commands if not command.startswith("make ")] in ([], WITHOUT_MAKE)
