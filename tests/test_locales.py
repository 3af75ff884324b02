"""The translations: made from the schemas as they are, whole, true to numbers and identifiers, and shown by ComfyUI's page."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from make_locales import LANGUAGES, LOCALES, all_texts, as_text, catalog, locale_files, missing, schemas, strings, told

TRANSLATED = LANGUAGES[1:]
NUMBER = re.compile(r"\d+(?:\.\d+)*")
QUOTED = re.compile(r"(?<!\w)'[^']+'(?!\w)")  # not the apostrophe of "the paper's"
# Names, and words that some language shares with English; no sentence is among them.
SAME = {
    "branches", "budget", "cfg", "clip", "clip_vision", "eta", "image", "images", "latent", "latents", "mode", "mutation",
    "parents", "patience", "population", "prompt", "rho", "score", "scores", "sigma", "sigmas", "transition", "vae",
}  # fmt: skip


@pytest.fixture(scope="module")
def texts():
    return all_texts(schemas())


@pytest.mark.comfy
@pytest.mark.parametrize("language", LANGUAGES)
def test_files_are_what_the_schemas_and_the_catalog_give(language, texts):
    """If this fails: python tools/make_locales.py"""
    files = locale_files(language, texts)
    assert [path.name for path in files] == ["nodeDefs.json", "main.json"]
    assert {path: path.read_text(encoding="utf-8") for path in files} == {path: as_text(c) for path, c in files.items()}


@pytest.mark.comfy
@pytest.mark.parametrize("language", TRANSLATED)
def test_nothing_is_left_of_strings_that_are_gone(language, texts):
    """If this fails: python tools/make_locales.py"""
    assert set(catalog(language)) <= set(strings(texts))


@pytest.mark.comfy
def test_what_has_no_translation_stays_english_and_the_generator_says_so(texts, monkeypatch):
    """The page takes from the schema what a language leaves out."""
    gone = texts["nodeDefs"]["NSBudget"]["description"]
    known = {text: translation for text, translation in catalog("de").items() if text != gone}
    monkeypatch.setattr("make_locales.catalog", lambda language: known)
    (defs,) = (content for path, content in locale_files("de", texts).items() if path.name == "nodeDefs.json")
    assert "description" not in defs["NSBudget"] and defs["NSBudget"]["display_name"] == known["Search Limits"]
    assert missing("de", {"nodeDefs": {"NSBudget": texts["nodeDefs"]["NSBudget"]}}) == [gone]
    assert told("de", texts).startswith("warning: de lacks ") and told("en", texts) == "en: complete"


@pytest.mark.parametrize("language", TRANSLATED)
def test_translations_are_translations(language):
    known = catalog(language)
    assert [text for text, translation in known.items() if not translation.strip()] == []
    assert [text for text, translation in known.items() if translation == text and text not in SAME] == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_numbers_and_quoted_identifiers_are_kept(language):
    known = catalog(language)
    lost = {text: Counter(NUMBER.findall(text)) - Counter(NUMBER.findall(new)) for text, new in known.items()}
    assert {text: numbers for text, numbers in lost.items() if numbers} == {}
    assert {text: new for text, new in known.items() if any(quoted not in new for quoted in QUOTED.findall(text))} == {}


def test_what_counts_as_a_number_and_as_quoted():
    text = "The paper's: 0.95, users' 2 cats at 2501.09732. With 'finalists' at 0 ('noise': 'given')."
    assert NUMBER.findall(text) == ["0.95", "2", "2501.09732", "0"]
    assert QUOTED.findall(text) == ["'finalists'", "'noise'", "'given'"]


@pytest.mark.server
def test_the_server_serves_all_languages(server):
    served = json.loads(server.get("/i18n"))
    assert set(LANGUAGES) <= set(served)
    for language in LANGUAGES:
        ours = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
        assert {name: served[language]["nodeDefs"][name] for name in ours} == ours


SHOWN = """() => {
    const node = LiteGraph.createNode('NSSearchSampler');
    const slot = (name) => node.inputs.find((input) => input.name === name).localized_name;
    return [node.title, slot('verifier'), node.widgets.find((widget) => widget.name === 'steps').label];
}"""


@pytest.mark.browser
def test_the_page_shows_translated_names(page):
    """In French; before ComfyUI 0.4 in German, since the page then drops what packs say in a language of its own."""
    version = json.loads(page.server.get("/system_stats"))["system"]["comfyui_version"]
    language = "de" if version.startswith("0.3.") else "fr"
    page.server.post("/settings", {"Comfy.Locale": language})
    try:
        page.reload()
        shown = page.page.evaluate(SHOWN)
    finally:
        page.server.post("/settings", {"Comfy.Locale": "en"})
    known = catalog(language)
    assert shown == [known[text] for text in ("Noise Search Sampler", "verifier", "steps")]
    assert "Noise Search Sampler" not in shown
    assert page.errors == []
