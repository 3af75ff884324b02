"""Texts for people: numbers of things, and texts cut to a length."""

from __future__ import annotations

MOST = 600  # letters of an error's text


def many(count: int, what: str) -> str:
    """Return "1 branch", "2 branches"."""
    ending = "" if count == 1 else "es" if what.endswith("ch") else "s"
    return f"{count} {what}{ending}"


def cut(text: str, most: int = MOST) -> str:
    """Return a text, cut with what was cut said if it is longer than `most` letters."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} more letters)"
