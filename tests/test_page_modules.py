"""The modules of the page: imports go down only, without a cycle, and one module alone reaches into ComfyUI's page."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "web" / "js"
IMPORT = re.compile(r'^(?:import|export)\b[^;]*?\bfrom "([^"]+)";|^import "([^"]+)";', re.MULTILINE)
PAGE = {"../../../../scripts/app.js", "../../../../scripts/api.js"}  # seen from a folder of web/js, as ComfyUI serves it
# What each folder may import, besides itself.
BELOW = {
    "common": set(),
    "state": set(),
    "comfyui": set(),
    "question": {"common"},
    "reports": {"common", "comfyui"},
    "reduce": {"common", "comfyui", "state"},
    "dashboard": {"common", "comfyui", "state", "question"},
}


def imports() -> dict[Path, set[str]]:
    """Return what each module imports, as it is written."""
    files = sorted(ROOT.rglob("*.js"))
    return {path: {a or b for a, b in IMPORT.findall(path.read_text(encoding="utf-8"))} for path in files}


def test_every_module_stands_in_a_folder() -> None:
    assert {path.relative_to(ROOT).parent.as_posix() for path in imports()} == set(BELOW)


def test_only_one_module_imports_the_page_of_comfyui() -> None:
    outside = {path.name: named - {name for name in named if (path.parent / name).is_file()} for path, named in imports().items()}
    assert {name: found for name, found in outside.items() if found} == {"page.js": PAGE}


def test_imports_between_folders_go_down() -> None:
    arrows = {
        (path.parent.name, (path.parent / name).resolve().parent.name)
        for path, named in imports().items()
        for name in named - PAGE
    }
    assert {(above, below) for above, below in arrows if above != below and below not in BELOW[above]} == set()
    assert {(above, below) for above, all_below in BELOW.items() for below in all_below} <= arrows


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {path: {(path.parent / name).resolve() for name in named - PAGE} for path, named in imports().items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_files_are_short() -> None:
    assert {path.name: count for path in imports() if (count := len(path.read_text("utf-8").splitlines())) > 300} == {}
