"""tools/check_release.py: a tag may be published when it, pyproject.toml and the changelog name the same version."""

from __future__ import annotations

import check_release
import pytest


@pytest.fixture
def problems(tmp_path):
    """The check, on a checkout of version 0.2.0 with a given title in its changelog."""

    def check(tag: str, title: str) -> list[str]:
        (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "0.2.0"\n', encoding="utf-8")
        (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{title}\n\n## 0.1.0\n", encoding="utf-8")
        return check_release.problems(tag, tmp_path)

    return check


def test_a_tag_of_the_version_that_the_changelog_begins_with(problems):
    assert problems("v0.2.0", "## 0.2.0") == []


def test_another_tag(problems):
    assert problems("v0.3.0", "## 0.2.0") == ["the tag is v0.3.0, but pyproject.toml has version 0.2.0: tag v0.2.0"]


@pytest.mark.parametrize(("title", "first"), [("## 0.2.0 (unreleased)", "0.2.0 (unreleased)"), ("", "0.1.0")])
def test_a_changelog_without_the_version(problems, title, first):
    (said,) = problems("v0.2.0", title)
    assert f'is "{first}": it must be "0.2.0"' in said


def test_the_checkout_is_read():
    said = check_release.problems("v999.0.0")
    assert said[0].startswith("the tag is v999.0.0, but pyproject.toml has version ")
