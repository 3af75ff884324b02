"""What searches are recalled by is what it was: keys of set-ups, signatures of verifiers, recipes, journals, reports."""

from __future__ import annotations

import copy
import importlib
import json
import pkgutil

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import make_keys
from every_method import METHODS
from keyed import HELD_BY_OTHERS, KEYED, VERIFIERS
from make_keys import FIXTURE, PARTS, SEARCHES, added, fixed_files, inputs_of, node_key, object_key, read_of

from noise_search import verifiers
from noise_search.nodes.store.setup_key import CHOICES, HELD, VERSION, setup_key
from noise_search.search import methods
from noise_search.search.noise.recipe import Recipe

WRITTEN = json.loads(FIXTURE.read_text(encoding="utf-8"))
CHANGES = [
    (name, attribute) for name, keyed in {**VERIFIERS, **HELD_BY_OTHERS}.items() for attribute in keyed.changes
]  # fmt: skip
CHOOSING = {  # of the search nodes' inputs, those that choose candidates or what is done with them
    "seed", "noise", "verifier", "budget", "keep", "method", "limits", "held_out", "on_cancel", "on_verifier_error", "batching",
    "choose", "resume", "rounds",
}  # fmt: skip


@pytest.mark.parametrize("part", [name for name in PARTS if name != "nodes"])
def test_what_was_written_down_is_what_is_found(part):
    with fixed_files():
        found = json.loads(json.dumps(PARTS[part]()))
    assert {name: found.get(name) for name in WRITTEN[part]} == WRITTEN[part]
    assert sorted(found) == sorted(WRITTEN[part])  # what is new is written down too: make docs


@pytest.mark.parametrize("node", WRITTEN["nodes"])
def test_ids_of_nodes_and_of_their_inputs_are_in_keys(node):
    """Inputs may be added at the end."""
    count, key = WRITTEN["nodes"][node]
    assert node_key(node, count) == key


def test_adding_leaves_what_was_written_down_as_it_was():
    assert added({"a": {"x": 1}}, {"a": {"y": 3, "x": 2}, "b": {"z": 4}}) == {"a": {"x": 1, "y": 3}, "b": {"z": 4}}


def test_every_node_is_written_down():
    """If this fails: make docs"""
    assert sorted(make_keys.classes()) == sorted(WRITTEN["nodes"])


@pytest.mark.parametrize("part", ["recipes of methods", "recipes of templates"])
def test_every_recipe_that_was_written_down_is_read(part):
    texts = [text for told in WRITTEN[part].values() for text in told["some"]]
    assert [Recipe.from_json(text).to_json() for text in texts] == texts


def modules_of(package):
    """Return a package's modules, and those of the packages in it."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [importlib.import_module(one.name) for one in found]


def classes_with(package, *attributes):
    """Return the names of the classes that a package defines, protocols aside, whose objects have attributes."""
    return {
        name
        for module in modules_of(package)
        for name, made in vars(module).items()
        if isinstance(made, type) and made.__module__ == module.__name__ and not getattr(made, "_is_protocol", False)
        and all(hasattr(made, one) or one in getattr(made, "__dataclass_fields__", ()) for one in attributes)
    }  # fmt: skip


def test_every_verifier_and_every_method_is_written_down():
    assert classes_with(verifiers, "name", "score_range") == set(VERIFIERS)
    assert classes_with(methods, "name", "run") == {type(method).__qualname__ for method in METHODS.values()}


@pytest.mark.parametrize("name", VERIFIERS | HELD_BY_OTHERS)
def test_each_attribute_that_keys_read_is_changed_here(name):
    """One that is renamed is not read any more, unless `HELD` follows, or is not known here."""
    assert read_of(KEYED[name].make()) == sorted(KEYED[name].changes)


@pytest.mark.parametrize(("name", "attribute"), CHANGES)
def test_each_attribute_that_keys_read_changes_the_key(name, attribute):
    keyed = KEYED[name]
    assert object_key(keyed.make()) == object_key(keyed.make()) != object_key(keyed.changed(attribute))


def test_every_name_of_an_attribute_that_keys_read_is_one_of_an_object_s():
    assert {attribute for _, attribute in CHANGES} == {*HELD, VERSION}


def test_every_class_has_a_key_of_its_own():
    keys = [told["key"] for told in WRITTEN["objects"].values()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("node", SEARCHES)
def test_an_input_of_a_search_node_changes_the_key_unless_it_chooses(node):
    graph = make_keys.graph()
    prompt = {"search": {"class_type": node, "inputs": {name: place for place, name in enumerate(inputs_of(node))}}}
    before = setup_key(prompt, "search", graph, "auto")
    choosing = set()
    for name in inputs_of(node):
        changed = copy.deepcopy(prompt)
        changed["search"]["inputs"][name] = "another"
        if setup_key(changed, "search", graph, "auto") == before:
            choosing.add(name)
    assert choosing == CHOOSING & set(inputs_of(node)) == CHOICES & set(inputs_of(node))
