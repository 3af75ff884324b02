"""What searches are recalled by, as it was written down once: `tests/keys.json`.

python tools/make_keys.py         writes the file anew
python tools/make_keys.py --add   writes down what is new, and leaves the rest as it is

Whoever searched before has journals on disk. A search finds them by the key of its set-up and the signature of its verifier,
which are made of names (classes, attributes, inputs) as much as of values; a picture is found again by its recipe. So what
this file holds stays as it is, whatever is renamed or moved: a change of it makes every journal, or a recipe, worthless.
Only what was not there before may be added.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pack import node_classes
from source import ROOT

node_classes()  # the pack, its test helpers and ComfyUI are there from now on

import comfyui_version
import folder_paths
import pytest
import torch
from analytic import prepare
from every_method import METHODS
from examples import DEMO_LOADERS, INPUT_PICTURE, NAMES, TINY_AESTHETIC, TINY_CLIP, TINY_IMAGE_REWARD, TINY_PICK_SCORE, api_form
from journaling import METHODS as JOURNALED
from journaling import go
from journaling import prepare as prepare_journal
from keyed import KEYED, VERIFIERS, numbers
from remembered import keep_journals, prompt_for, remembered
from safetensors.torch import load
from searching import parts

from node_api import NODES
from noise_search.nodes.run.runner import graphs
from noise_search.nodes.store.setup_key import HELD, VERSION, setup_key, verifier_signature
from noise_search.search.core.commands import CommandLog
from noise_search.search.core.search import Search
from noise_search.search.journal.lines import SETTLED
from noise_search.search.journal.reading import FILE, STATES
from noise_search.search.methods.auto_search import choose_for
from noise_search.search.run import run_search
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.measures.statistics import ImageStatistics
from toys import guider, run_node, toy_model

FIXTURE = ROOT / "tests" / "keys.json"
SEARCHES = ("NSSearchSampler", "NSSearchSamplerAdvanced")
FILES = {
    "diffusion_models": [DEMO_LOADERS["UNETLoader"]["unet_name"]], "vae": [DEMO_LOADERS["VAELoader"]["vae_name"]],
    "clip_vision": [TINY_CLIP, TINY_PICK_SCORE], "verifiers": [TINY_AESTHETIC, TINY_IMAGE_REWARD],
}  # fmt: skip
IMAGES, STEPS = 8, 8  # of the searches on the analytic session; its noise levels have no rounded digit
WRITTEN = ("chain", "zero-order with drafts", "FK, renoised", "halving", "auto search")  # of `JOURNALED`


@contextmanager
def fixed_files() -> Iterator[None]:
    """Have files of fixed contents with the names that the templates' test forms hold."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        for kind, names in {**FILES, "input": [INPUT_PICTURE]}.items():
            root = Path(folder) / kind
            root.mkdir()
            for name in names:
                (root / name).write_bytes(name.encode())
            if kind != "input":
                suffixes = {Path(name).suffix for name in names}
                monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(root)], suffixes))
        monkeypatch.setattr(folder_paths, "input_directory", str(Path(folder) / "input"))
        monkeypatch.setattr(folder_paths, "filename_list_cache", {})
        yield


@contextmanager
def fixed_versions() -> Iterator[None]:
    """Have versions of ComfyUI and torch that no update changes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(comfyui_version, "__version__", "a ComfyUI")
        monkeypatch.setattr(torch, "__version__", "a torch")
        yield


@functools.cache
def classes() -> dict[str, Any]:
    """Return the classes of the pack's nodes, by id."""
    return {cls.GET_SCHEMA().node_id: cls for cls in node_classes()}


def inputs_of(node: str) -> list[str]:
    """Return the ids of a node's inputs, in order, as the live schema has them."""
    return [item.id for item in classes()[node].GET_SCHEMA().inputs]


def graph() -> Any:
    """Return what reaches a search node: of a toy model, with tensors that every machine computes alike."""
    model, texts = toy_model("eps"), [[numbers(1, 2, 64), {"pooled_output": numbers(1, 4)}]]
    latent = {"samples": numbers(1, 4, 8, 8) / 64, "noise_mask": torch.ones(1, 8, 8)}
    made = parts("eps", g=guider(model, positive=texts, negative=texts), sigmas=numbers(5).flip(0), latent=latent)
    (noise,) = run_node("RandomNoise", noise_seed=3)
    (found,) = graphs(noise, made["guider"], made["sampler"], made["sigmas"], made["latent_image"], made["vae"])
    return found


def cascade_node(*values: Any) -> dict[str, Any]:
    """Return a cascade in API form, given its inputs in order: a cheap verifier, an expensive one, finalists, their share."""
    return {"class_type": "NSVerifierCascade", "inputs": dict(zip(inputs_of("NSVerifierCascade"), values, strict=True))}


def cascade_form() -> dict[str, Any]:
    """Return the ensemble's template with a cascade of two of its verifiers."""
    return {**api_form("paper_ensemble"), "10": cascade_node(["7", 0], ["9", 0], 8, 0.25)}


def searches() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each search of the templates, in API form as they run on the demo model, and of one with a cascade.

    Yields: the template's name, the search node's id, the prompt.
    """
    for name, prompt in {**{name: api_form(name) for name in NAMES}, "a cascade": cascade_form()}.items():
        yield from ((name, node, prompt) for node, what in prompt.items() if what["class_type"] in SEARCHES)


def signature(prompt: Mapping[str, Any], node: str, name: str) -> str | None:
    """Return the signature of a verifier as far as the prompt tells it; None if none is connected."""
    return verifier_signature(prompt, node, name) if name in prompt[node]["inputs"] else None


def template_keys() -> dict[str, Any]:
    """Return the keys of each template's searches: of its set-up, its verifier and its held-out one."""
    reached, found = graph(), {}
    for name, node, prompt in searches():
        batching = prompt[node]["inputs"]["batching"]
        with fixed_versions():
            key = setup_key(prompt, node, reached, batching)
        verifiers = {place: signature(prompt, node, place) for place in ("verifier", "held_out")}
        found[f"{name} {node}"] = {"set-up": key, **verifiers}
    return found


def holding(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a prompt whose search takes the output of a node for its verifier."""
    return {"node": dict(node), "search": {"class_type": SEARCHES[0], "inputs": {"verifier": ["node", 0]}}}


def node_key(node: str, count: int) -> str:
    """Return the key of one node of the pack: of its id, and of the first `count` of its inputs, by their ids."""
    inputs = {name: place for place, name in enumerate(inputs_of(node)[:count])}
    return verifier_signature(holding({"class_type": node, "inputs": inputs}), "search", "verifier")


def node_keys() -> dict[str, Any]:
    return {node: [len(inputs_of(node)), node_key(node, len(inputs_of(node)))] for node in NODES}


def object_key(made: Any) -> str:
    """Return the key of a prompt by which an object reaches the search."""
    return verifier_signature(holding({"class_type": "Made elsewhere", "inputs": {}}), "search", "verifier", [made])


def read_of(made: Any) -> list[str]:
    """Return the names of an object's attributes that keys read."""
    return sorted(name for name in (*HELD, VERSION) if hasattr(made, name))


def object_keys() -> dict[str, Any]:
    made = {name: keyed.make() for name, keyed in KEYED.items()}
    said = {name: {"key": object_key(one), "reads": read_of(one)} for name, one in made.items()}
    return {name: {**told, "name": made[name].name} if name in VERIFIERS else told for name, told in said.items()}


def of(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def told_of(recipes: Sequence[str]) -> dict[str, Any]:
    """Return what is written down of the recipes of a search: how many, their hash, and three of them."""
    shown = sorted({0, len(recipes) // 2, len(recipes) - 1})
    return {"count": len(recipes), "all": of(recipes), "some": [recipes[i] for i in shown]}


def method_of(prompt: Mapping[str, Any], link: Sequence[Any]) -> Any:
    """Return the method, or what it is given, that nodes of the pack make in a prompt."""
    node = prompt[link[0]]
    inputs = {n: method_of(prompt, value) if isinstance(value, list) else value for n, value in node["inputs"].items()}
    return run_node(classes()[node["class_type"]], **inputs)[link[1]]


def seed_of(prompt: Mapping[str, Any], node: str) -> int:
    inputs = prompt[node]["inputs"]
    return inputs["seed"] if "seed" in inputs else prompt[inputs["noise"][0]]["inputs"]["noise_seed"]


def searched(search: Search, method: Any) -> dict[str, Any]:
    """Run a search; return what tells it from others where commands are kept, its best candidate, and its recipes."""
    begun: list[str] = []
    search.control.keep_commands(CommandLog(lambda text: begun.append(text) or []))
    for _ in run_search(search, method):
        pass
    search.close()
    best = search.ranked[0][0].index
    return {"method": begun[0], "best": best, **told_of([candidate.recipe.to_json() for candidate in search.candidates])}


def method_recipes() -> dict[str, Any]:
    """Return what each method, and each way to draw noise, tries on the analytic session."""
    return {name: searched(prepare(IMAGES, steps=STEPS), method) for name, method in METHODS.items()}


def template_recipes() -> dict[str, Any]:
    """Return what the searches of the templates try on the analytic session: with their methods, budgets and seeds."""
    found = {}
    for name, node, prompt in searches():
        inputs = prompt[node]["inputs"]
        search = prepare(inputs["budget"], seed=seed_of(prompt, node), keep=inputs["keep"], steps=16)
        method = method_of(prompt, inputs["method"]) if "method" in inputs else choose_for(search, inputs["budget"])[0]
        found[f"{name} {node}"] = searched(search, method)
    return found


def fields_in(value: Any, place: str = "") -> set[str]:
    """Return the names of all fields in JSON values, with where they are; a list is one place, numbers one name."""
    if isinstance(value, Mapping):
        named = {"0" if name.isdigit() else name: inner for name, inner in value.items()}
        return {place}.union(*(fields_in(inner, f"{place}.{name}") for name, inner in named.items()))
    return {place}.union(*(fields_in(inner, f"{place}[]") for inner in value)) if isinstance(value, list) else {place}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of the one journal below a folder."""
    (file,) = folder.rglob(FILE)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def journal_lines(name: str) -> dict[str, Any]:
    """Return what a journal of a search on the analytic session is made of: its fields, and a hash of its lines' names."""
    with tempfile.TemporaryDirectory() as folder:
        go(prepare_journal(Path(folder) / "journal", IMAGES), JOURNALED[name])
        header, *lines = lines_of(Path(folder))
    kinds = sorted({line["kind"] for line in lines})
    fields = {kind: sorted(set().union(*(fields_in(line) for line in lines if line["kind"] == kind))) for kind in kinds}
    return {"header": header, "fields": fields, "names": of(line["name"] for line in lines)}


def whole_search() -> dict[str, Any]:
    """Return what a search with a cascade writes as its node runs it: who scored, names of tensors, fields of the report."""
    prompt = {**prompt_for(), "verifier": cascade_node(["cheap", 0], ["another", 0], 2, 0.25)}
    prompt |= {name: {"class_type": "NSImageStatistics", "inputs": {}} for name in ("cheap", "another")}
    verifier = Cascade(ImageStatistics(), ImageStatistics(sharpness=0.5), 2)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch, torch.inference_mode():
        journals = keep_journals(Path(folder), monkeypatch)
        report = remembered(parts("flow", steps=12), 3, prompt, budget=6, method=JOURNALED["chain"], verifier=verifier).report
        lines = lines_of(journals)
        (states,) = journals.rglob(STATES)
        tensors = {name for path in states.iterdir() for name in load(path.read_bytes())}
    return {
        "by": sorted({line["by"] for line in lines if "by" in line}),
        "settled": sorted({line["name"] for line in lines if line.get("kind") == SETTLED}),
        "tensors": sorted(tensors),
        "report": sorted(fields_in(report)),
    }


PARTS: dict[str, Callable[[], Any]] = {
    "templates": template_keys,
    "nodes": node_keys,
    "objects": object_keys,
    "recipes of methods": method_recipes,
    "recipes of templates": template_recipes,
    "journals": lambda: {name: journal_lines(name) for name in WRITTEN},
    "a whole search": whole_search,
}


def added(written: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was written down, part by part, and after it what was found beside."""
    return {part: {**found[part], **written.get(part, {})} for part in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", action="store_true", help="only add what is new")
    add = parser.parse_args().add
    with fixed_files():
        found = {name: make() for name, make in PARTS.items()}
    if add:
        found = added(json.loads(FIXTURE.read_text(encoding="utf-8")), found)
    FIXTURE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
