"""Text from strangers, as it may stand in HTML."""

from __future__ import annotations

import html
from typing import Any

MAX_TEXT = 2000  # characters of one text
UNPRINTABLE = {code: "\ufffd" for code in (*range(9), 11, 12, *range(14, 32), *range(127, 160))}


def escaped(text: str, most: int = MAX_TEXT) -> str:
    """Return a text without effect in an element or a quoted attribute: escaped, printable, cut at `most` characters."""
    cut = text if len(text) <= most else text[:most] + "…"
    return html.escape(cut.translate(UNPRINTABLE))


def said(value: Any, most: int = MAX_TEXT) -> str:
    """Return a value as the content of an element: numbers short, text escaped and of its own direction."""
    if value is None:
        return "–"
    if isinstance(value, (int, float)):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"<bdi>{escaped(str(value), most)}</bdi>"
