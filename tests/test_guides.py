"""The guides under docs/: their blocks of code are put where they say, and run."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> dict[str, str]:
    """Return a guide's blocks of code by the file that each belongs to."""
    return dict(BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8")))


def module_from(path: str, source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a block of code as the module that it would be in the file that it belongs to, until the test's end."""
    file = folder / path.replace("/", "_")
    file.write_text(source, encoding="utf-8")
    name = path.removesuffix(".py").replace("/", ".")
    spec = importlib.util.spec_from_file_location(name if path.startswith("tests/") else f"noise_search.{name}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("adding-a-method.md", ["search/methods/annealed.py", "tests/test_annealed.py"]),
        pytest.param(
            "adding-a-verifier.md",
            [
                "verifiers/measures/warmth.py",
                "nodes/definitions/verifiers/warmth.py",
                "tests/verifiers/test_warmth.py",
            ],
            marks=pytest.mark.comfy,
        ),
    ],
)
def test_the_code_of_a_guide_runs(page: str, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(page)
    assert list(found) == files
    for path, source in found.items():
        assert not (ROOT / path).exists()
        module = module_from(path, source, tmp_path, monkeypatch)
        tests = [value for name, value in vars(module).items() if name.startswith("test_")]
        assert bool(tests) == path.startswith("tests/")
        for test in tests:
            test()
