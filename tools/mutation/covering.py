"""Which tests run which lines: a plugin of pytest that notes it, and what it wrote. Needs the package coverage.

`pytest -p mutation.covering` writes to the file that the environment names in `NOISE_SEARCH_COVERING`: JSON, for every file of
product code and every line of it the tests that ran it; tests that failed are left out. What other processes run (servers) is
not seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest
from source import LAYERS

TARGET = "NOISE_SEARCH_COVERING"


class Covering:
    """Measures a run of pytest, each test in a context of its own."""

    def __init__(self, root: Path, target: Path) -> None:
        """Prepare to measure the product code of a checkout, and to write what was found to a file."""
        self._root, self._target = root, target
        sources = [str(root / layer) for layer in LAYERS]
        self._coverage = coverage.Coverage(data_file=None, source=sources, concurrency=["greenlet", "thread"], messages=False)
        self._failed: set[str] = set()

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {
            str(Path(path).relative_to(self._root)): self._tests(data.contexts_by_lineno(path)) for path in data.measured_files()
        }
        self._target.write_text(json.dumps(lines), encoding="utf-8")

    def _tests(self, contexts: dict[int, list[str]]) -> dict[int, list[str]]:
        passed = {line: sorted({*tests} - {"", *self._failed}) for line, tests in contexts.items()}
        return {line: tests for line, tests in passed.items() if tests}


def pytest_configure(config: pytest.Config) -> None:
    """Measure where the environment says to."""
    if target := os.environ.get(TARGET):
        config.pluginmanager.register(Covering(config.rootpath, Path(target)), "noise-search-covering")
