"""Read the prompt files of the known benchmarks, which the user supplies.

    DrawBench       CSV, columns Prompts and Category
    GenEval         JSONL, {"prompt": ..., "tag": ..., "include": [...]}; other keys are kept as metadata
    T2I-CompBench   text, one prompt a line, one file for each category (color_val.txt, shape_val.txt, ...)

A prompt's id is its file's name and its place in the file, so that it is stable, and equal prompts stay apart.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COLUMNS = ("prompt", "prompts", "text", "caption")
CATEGORIES = ("category", "tag")
FORMATS = (".csv", ".jsonl", ".txt")
SPLIT = re.compile(r"_(val|train|test)$")  # T2I-CompBench's "color_val" is the category "color"


class PromptFileError(ValueError):
    """A prompt file cannot be read; says which, where, and what was expected."""


@dataclass(frozen=True)
class Prompt:
    """One prompt of a file.

    Attributes:
        id: The file's name and the prompt's place in it from 0: "drawbench-00007". Letters, digits, "_" and "-".
        text: The prompt, as written, without blanks around it.
        category: The file's own (columns `category` or `tag`); of a text file its name; else "".
        metadata: All other columns or keys.
    """

    id: str
    text: str
    category: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def read_prompts(path: Path, column: str | None = None) -> list[Prompt]:
    """Read one prompt file.

    Args:
        path: A .csv, .jsonl or .txt file in UTF-8.
        column: The column or key that holds the prompt; None for the one called prompt, prompts, text or caption,
            whatever its case.

    Raises:
        PromptFileError: Naming file, line and what was expected, for anything that is not such a file.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise PromptFileError(f"{path}: its name must end in {', '.join(FORMATS)}, so that its format is known")
    if column is not None and kind == ".txt":
        raise PromptFileError(f"{path}: a text file has one prompt a line and no columns; column {column!r} was asked for")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PromptFileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PromptFileError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    records = {".csv": _csv, ".jsonl": _jsonl, ".txt": _txt}[kind](path, text, column)
    prompts = [_prompt(path, index, *record) for index, record in enumerate(records)]
    if not prompts:
        raise PromptFileError(f"{path}: holds no prompt; expected at least one")
    return prompts


def read_all(paths: Iterable[Path], column: str | None = None) -> list[Prompt]:
    """Read several prompt files, one after another.

    Raises:
        PromptFileError: As `read_prompts`, and for two files of one name, whose prompts would share their ids.
    """
    prompts = [prompt for path in paths for prompt in read_prompts(path, column)]
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise PromptFileError(f"two of the files {', '.join(map(str, paths))} have the same name: rename one")
    return prompts


def _prompt(path: Path, index: int, line: int, text: Any, rest: dict[str, Any]) -> Prompt:
    if not isinstance(text, str) or not text.strip():
        raise PromptFileError(f"{path}, line {line}: the prompt is {text!r}; expected some text")
    category = next((str(rest[key]) for key in rest if key.lower() in CATEGORIES and rest[key] is not None), None)
    if category is None:
        category = SPLIT.sub("", path.stem) if path.suffix.lower() == ".txt" else ""
    metadata = {key: value for key, value in rest.items() if key.lower() not in CATEGORIES}
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)
    return Prompt(f"{stem}-{index:05d}", text.strip(), category, metadata)


def _column(path: Path, line: int, names: Iterable[str], wanted: str | None) -> str:
    """Return which of the names holds the prompt."""
    names = list(names)
    shown = ", ".join(map(repr, names)) or "none"
    if wanted is not None:
        if wanted not in names:
            raise PromptFileError(f"{path}, line {line}: no column or key {wanted!r}; there is {shown}")
        return wanted
    found = [name for name in names if name.strip().lower() in COLUMNS]
    if len(found) != 1:
        which = "none" if not found else f"{len(found)} ({', '.join(map(repr, found))})"
        raise PromptFileError(
            f"{path}, line {line}: expected one column or key called {', '.join(COLUMNS)}, found {which} in {shown};"
            " name it with --column"
        )
    return found[0]


def _csv(path: Path, text: str, column: str | None) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        name = _column(path, 1, reader.fieldnames or [], column)
        for row in reader:
            if None in row or None in row.values():
                raise PromptFileError(
                    f"{path}, line {reader.line_num}: expected {len(reader.fieldnames)} fields as in line 1; put"
                    " quotation marks around a prompt with commas"
                )
            yield reader.line_num, row[name], {key: value for key, value in row.items() if key != name}
    except csv.Error as error:
        raise PromptFileError(f"{path}, line {reader.reader.line_num}: not CSV: {error}") from error


def _jsonl(path: Path, text: str, column: str | None) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            record = json.loads(content, parse_constant=_not_json)
        except ValueError as error:
            raise PromptFileError(f"{path}, line {line}: expected one JSON object on the line: {error}") from error
        if not isinstance(record, dict):
            raise PromptFileError(f"{path}, line {line}: expected a JSON object, found {type(record).__name__}")
        name = _column(path, line, record, column)
        yield line, record[name], {key: value for key, value in record.items() if key != name}


def _not_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _txt(path: Path, text: str, column: str | None) -> Iterator[tuple[int, Any, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            yield line, content, {}
