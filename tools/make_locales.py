"""The nodes' texts in seven languages: `locales/<language>/`, made from the live schemas and one catalog a language.

python tools/make_locales.py                 writes nodeDefs.json and main.json of every language, and tidies the catalogs
python tools/make_locales.py --missing zh    prints what the catalog of a language lacks, to be filled in: {"English": ""}

English is what the schemas say. A catalog, `locales/<language>/strings.json`, maps each English string to its translation,
once, however many nodes say it. When a tooltip changes, its entry in six catalogs is all there is to edit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pack import node_classes
from source import ROOT

LOCALES = ROOT / "locales"
LANGUAGES = ["en", "zh", "ja", "ko", "fr", "de", "es"]
# ComfyUI's page hands translations to vue-i18n, which reads these as its own syntax; what it is not given, it takes
# from the schema as it stands.
MESSAGE_SYNTAX = frozenset("{}@|")

Translate = Callable[[str], "str | None"]


def schemas() -> list[Any]:
    """Return the schema of every node of the pack, in menu order."""
    return [node.define_schema() for node in node_classes()]


def node_texts(schema: Any) -> dict[str, Any]:
    """Return a node's texts in English, in the shape that ComfyUI's page looks for."""
    inputs = {
        item.id.replace(".", "_"): {"name": item.display_name or item.id, "tooltip": item.tooltip} for item in schema.inputs
    }
    outputs = {str(place): {"name": item.display_name, "tooltip": item.tooltip} for place, item in enumerate(schema.outputs)}
    return {"display_name": schema.display_name, "description": schema.description, "inputs": inputs, "outputs": outputs}


def all_texts(nodes: list[Any]) -> dict[str, dict[str, Any]]:
    """Return everything that is translated, in English: the content of nodeDefs.json and of main.json."""
    menu = {part: part for schema in nodes for part in schema.category.split("/")}
    return {"nodeDefs": {schema.node_id: node_texts(schema) for schema in nodes}, "main": {"nodeCategories": menu}}


def translated(texts: Any, translate: Translate) -> Any:
    """Return the same tree with its strings translated; what has no translation is left out, and what becomes empty."""
    if isinstance(texts, dict):
        tree = {key: translated(value, translate) for key, value in texts.items()}
        return {key: value for key, value in tree.items() if value}
    return translate(texts) if texts else None


def strings(texts: Any) -> Iterator[str]:
    """Yield every English string of a tree, in order, repetitions included."""
    if isinstance(texts, dict):
        for value in texts.values():
            yield from strings(value)
    elif texts:
        yield texts


def catalog(language: str) -> dict[str, str]:
    """Return a language's catalog; English has none, and says everything as it stands."""
    path = LOCALES / language / "strings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def sendable(text: str | None) -> str | None:
    """Return a text, or None where the page would misread it."""
    return None if text is None or MESSAGE_SYNTAX & set(text) else text


def locale_files(language: str, texts: dict[str, dict[str, Any]]) -> dict[Path, Any]:
    """Return the files of a language that ComfyUI reads: path and content."""
    known = catalog(language)
    translate: Translate = sendable if language == "en" else lambda text: sendable(known.get(text))
    return {LOCALES / language / f"{name}.json": translated(tree, translate) for name, tree in texts.items()}


def missing(language: str, texts: dict[str, dict[str, Any]]) -> list[str]:
    """Return the English strings that a language does not translate, each once."""
    known = catalog(language)
    return [text for text in dict.fromkeys(strings(texts)) if language != "en" and text not in known]


def told(language: str, texts: dict[str, dict[str, Any]]) -> str:
    """Say whether a language is complete; what it lacks, the page shows in English."""
    lacks = len(missing(language, texts))
    if not lacks:
        return f"{language}: complete"
    return f"warning: {language} lacks {lacks} strings, which stay English: see --missing {language}"


def as_text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missing", choices=LANGUAGES[1:], help="print what this language lacks, and write nothing")
    asked = parser.parse_args().missing
    texts = all_texts(schemas())
    if asked:
        sys.stdout.write(as_text(dict.fromkeys(missing(asked, texts), "")))
        return
    wanted = dict.fromkeys(strings(texts))
    for language in LANGUAGES:
        (LOCALES / language).mkdir(parents=True, exist_ok=True)
        if language != "en":
            known = catalog(language)
            tidy = {text: known[text] for text in wanted if text in known}
            (LOCALES / language / "strings.json").write_text(as_text(tidy), encoding="utf-8")
        for path, content in locale_files(language, texts).items():
            path.write_text(as_text(content), encoding="utf-8")
        sys.stdout.write(told(language, texts) + "\n")


if __name__ == "__main__":
    main()
