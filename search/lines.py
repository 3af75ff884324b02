"""Lines of a journal's file: JSON objects, each with its checksum.

What is read may have been damaged, or be of another version of the pack: only lines that have all that a reader of them
uses are given to it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

RUN, SCORES, SETTLED, NO_LOOKS = "run", "scores", "settled", "no looks"
Entry = dict[str, Any]
LARGEST = sys.float_info.max  # JSON has integers that no float holds
JOINED = re.compile(rb"(?<=\}).(?=\{\")", re.DOTALL)  # where the end of a line may have been, if it is damaged


def name_of(what: Any) -> str:
    """Return the name, 32 hex digits, of what JSON values tell."""
    return name_of_text(canonical(what))


def name_of_text(text: str) -> str:
    """Return the name, 32 hex digits, of what canonical text tells."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def canonical(value: Any) -> str:
    """Return JSON values as the one text that stands for them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def line_of(entry: Mapping[str, Any]) -> bytes:
    """Return a line: the entry as JSON with its checksum."""
    return canonical({**entry, "crc": zlib.crc32(canonical(entry).encode())}).encode() + b"\n"


def entries_in(data: bytes) -> Iterator[Entry | None]:
    """Yield what each line holds, in order; None for a line whose checksum does not say the same.

    Where the end of a line is damaged, the two lines that it parted are read all the same.
    """
    for line in data.split(b"\n"):
        entry = _parsed(line)
        parts = [_parsed(part) for part in JOINED.split(line)] if entry is None else [entry]
        yield from [part for part in parts if part is not None] or [None]


def is_usable(entry: Entry) -> bool:
    """Whether a line has all that its readers use, of the types that they expect; lines of unknown kinds have no readers."""
    kind = entry.get("kind")
    fields = FIELDS.get(kind, {}) if isinstance(kind, str) else {}
    return all(fits(entry[name]) if name in entry else name in OPTIONAL for name, fits in fields.items())


def _parsed(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
        crc = entry.pop("crc")
        return entry if zlib.crc32(canonical(entry).encode()) == crc else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _is_score(value: Any) -> bool:
    return value is None or _is_number(value)


def _each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and _is_count(value.get("size")) and _is_text(value.get("sha256"))


def _are_scores(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_score, value.values()))


OPTIONAL = {"recipe", "noted", "gaps", "state"}
FIELDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    RUN: {"name": _is_text, "what": _is_object, "calls": _is_count, "levels": _each(_is_number), "recipe": _is_object,
          "noted": _each(_is_number), "gaps": _each(_is_score), "state": _is_state},
    SCORES: {"name": _is_text, "by": _is_text, "values": _are_scores},
    SETTLED: {"name": _is_text, "by": _is_text, "value": lambda value: True},
}  # fmt: skip
