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
from typing import Any, BinaryIO

RUN, SCORES, SETTLED, NO_LOOKS = "run", "scores", "settled", "no looks"
Entry = dict[str, Any]
LARGEST = sys.float_info.max  # JSON has integers that no float holds
JOINED = re.compile(rb"(?<=\}).(?=\{\")", re.DOTALL)  # where the end of a line may have been, if it is damaged
CRC = re.compile(rb'"crc":\d+,|,?"crc":\d+(?=\})')  # a line's own, as `line_of` writes it
LONGEST = 16 << 20  # bytes of a line that is read where memory is to be bounded


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
    """Return a line: the entry as JSON with its checksum among its fields, all in order of their names."""
    parts = {name: f"{canonical(name)}:{canonical(value)}" for name, value in sorted(entry.items())}
    crc = zlib.crc32(f"{{{','.join(parts.values())}}}".encode())
    fields = sorted({**parts, "crc": f'"crc":{crc}'}.items())
    return f"{{{','.join(part for _, part in fields)}}}\n".encode()


def lines_in(file: BinaryIO, longest: int = -1) -> Iterator[tuple[int, bytes]]:
    """Yield where each line of a file begins, and the line with its end; lines above `longest` bytes come in pieces."""
    start = 0
    while line := file.readline(longest):
        yield start, line
        start += len(line)


def entries_in(line: bytes) -> Iterator[tuple[int, int, Entry | None]]:
    """Yield where in a line, without its end, each entry lies, its length, and the entry; None if its checksum is another.

    Where the end of a line is damaged, the two lines that it parted are read all the same.
    """
    if (entry := parsed(line)) is not None:
        yield 0, len(line), entry
        return
    ends = [found.start() for found in JOINED.finditer(line)]
    places = zip([0, *(end + 1 for end in ends)], [*ends, len(line)], strict=True)
    parts = [(start, end - start, entry) for start, end in places if (entry := parsed(line[start:end])) is not None]
    yield from parts or [(0, len(line), None)]


def is_usable(entry: Entry) -> bool:
    """Whether a line has all that its readers use, of the types that they expect; lines of unknown kinds have no readers."""
    kind = entry.get("kind")
    fields = FIELDS.get(kind, {}) if isinstance(kind, str) else {}
    return all(fits(entry[name]) if name in entry else name in OPTIONAL for name, fits in fields.items())


def parsed(line: bytes) -> Entry | None:
    """Return the entry of a line without its end; None if there is none, or its checksum is another."""
    try:
        entry = json.loads(line)
        crc = entry.pop("crc")
        same = zlib.crc32(CRC.sub(b"", line, count=1)) == crc or zlib.crc32(canonical(entry).encode()) == crc
        return entry if same else None
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
