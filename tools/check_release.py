"""Whether a tag may be published: it names the version of pyproject.toml, and the changelog tells what is in it.

python tools/check_release.py v0.2.0
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def problems(tag: str, root: Path = ROOT) -> list[str]:
    """Say what keeps a tag from being published, in sentences; none: nothing does."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)[1]
    found = [] if tag == f"v{version}" else [f"the tag is {tag}, but pyproject.toml has version {version}: tag v{version}"]
    titles = re.findall(r"^## (.+)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    if not titles or titles[0] != version:
        first = f'"{titles[0]}"' if titles else "missing"
        found.append(f'the first section of CHANGELOG.md is {first}: it must be "{version}", without "(unreleased)"')
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag", help="such as v0.2.0")
    if found := problems(parser.parse_args().tag):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
